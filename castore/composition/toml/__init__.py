"""TOML as text: where things stand in it, and what is wrong with it."""
