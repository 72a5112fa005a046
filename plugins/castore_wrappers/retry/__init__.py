"""The `retry` service type: what is unavailable is asked again."""
