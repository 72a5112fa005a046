"""Bytes in, bytes or offsets out: cutting, frames, indexes. No file, socket, clock or thread."""
