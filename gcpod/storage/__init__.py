"""Cloud Storage: planning, uploading and mirroring."""
