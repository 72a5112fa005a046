"""The `breaker` service type: a service that is left alone while it fails."""
