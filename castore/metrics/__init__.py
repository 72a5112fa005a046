"""What is measured of services, and how it is told."""
