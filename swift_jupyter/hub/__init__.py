"""Storage: where models and datasets come from and where they lie on this machine."""
