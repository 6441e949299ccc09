"""A page to look at before a dataset is trusted: numbers, histograms, findings and a contact sheet in one HTML file."""
