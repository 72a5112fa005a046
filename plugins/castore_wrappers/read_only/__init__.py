"""The `read_only` service type: a service that nothing can be written to."""
