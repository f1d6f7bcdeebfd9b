"""Optimizers that need less memory than AdamW: GaLore, Q-GaLore, APOLLO."""
