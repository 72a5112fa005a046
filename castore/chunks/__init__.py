"""Blobs as chunks: reading, writing and storing them, and the base of backends that keep them."""
