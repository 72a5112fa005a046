"""The `error` service type: every operation has one fixed outcome."""
