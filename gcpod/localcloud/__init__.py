"""A strict Google Cloud on loopback: storage, custom jobs and log entries, spoken to by Google's own clients."""
