"""Continuous batching: many answers from one model at once, each joining and leaving on its own."""
