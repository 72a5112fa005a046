"""Reading and writing whole trees of directories, on top of any service of them."""
