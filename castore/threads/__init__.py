"""Where threads are started, and how they are waited for."""
