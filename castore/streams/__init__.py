"""Ready-made readers and writers of blobs."""
