"""Names of models, and loading them."""
