"""Clients of both hubs' protocols: listings, and where the bytes are."""
