"""The `limit` service type: not too much of a service at once."""
