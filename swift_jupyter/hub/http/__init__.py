"""HTTP with pooled keep-alive connections."""
