"""The declared graph: who refers to whom, and what is odd about that."""
