"""What services over several others are made of."""
