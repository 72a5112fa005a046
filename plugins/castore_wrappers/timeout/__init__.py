"""The `timeout` service type: a service that does not answer is waited for no longer than that."""
