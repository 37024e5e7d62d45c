"""How the parameters follow from what was sampled."""
