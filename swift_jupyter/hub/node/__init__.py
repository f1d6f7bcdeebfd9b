"""The mirror node: one store, served to the unmodified clients of both hubs."""
