"""Runs transfers: queues them, forms groups, and takes each group through its protocol."""
