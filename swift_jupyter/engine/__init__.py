"""Execution: does the work and knows nothing of notebooks."""
