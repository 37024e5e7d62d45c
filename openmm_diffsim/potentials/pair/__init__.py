"""Functions of a distance."""
