"""Places that copy the hubs: which there are, how well they do, and in which order to ask."""
