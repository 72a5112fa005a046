"""The `verify` service type: nothing unchecked is handed out."""
