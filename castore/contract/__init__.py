"""What services promise, and what is handed to them."""
