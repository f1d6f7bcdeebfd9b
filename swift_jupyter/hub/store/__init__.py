"""One store for the files of both hubs, addressed by their SHA-256."""
