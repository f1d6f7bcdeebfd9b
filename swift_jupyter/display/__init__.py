"""How results look: in a notebook, in a terminal, in a saved file."""
