"""The command line: arguments to library calls; the only place that prints, and the only error to exit code map."""
