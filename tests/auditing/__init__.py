"""The audit, on clusters of its own."""
