"""The type `packed`: many chunks in one object."""
