"""From the values of a table to the config class of a type."""
