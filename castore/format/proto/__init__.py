"""Generated from `castore.proto` by `make proto`; a test compares the two."""
