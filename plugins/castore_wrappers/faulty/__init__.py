"""The `faulty` service type: another service, with faults made on purpose."""
