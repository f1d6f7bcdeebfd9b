"""What lies in the caches of both hubs: scanned, judged, verified, removed."""
