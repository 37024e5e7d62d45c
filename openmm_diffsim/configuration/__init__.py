"""A fit written down in TOML."""
