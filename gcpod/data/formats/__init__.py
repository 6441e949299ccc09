"""What labelling tools write, one module a format: files in, `gcpod.data.model.Labels` out; no image is opened here."""
