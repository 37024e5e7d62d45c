"""Networks that see all particles."""
