"""The kinds in which a batch of transfers comes and is answered: JSON, NDJSON and Arrow streams."""
