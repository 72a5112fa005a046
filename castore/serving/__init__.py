"""Servers: services of a composition for other programs, each an extra of the distribution."""
