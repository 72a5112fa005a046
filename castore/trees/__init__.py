"""Whole folders: in under one digest, and back; looked into without that a blob is read."""
