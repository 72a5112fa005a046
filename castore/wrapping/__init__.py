"""Services that stand around one other service, and the forwarding that they are made of."""
