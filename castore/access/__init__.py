"""Trees and blobs where other libraries look for files."""
