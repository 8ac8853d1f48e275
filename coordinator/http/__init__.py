"""The HTTP API, version 1: JSON in and out, problem documents for what is refused."""
