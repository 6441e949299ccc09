"""Jobs on Vertex AI: requests, exactly-once submission, watching, logs."""
