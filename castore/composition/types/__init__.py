"""The installed types of services, and where they come from."""
