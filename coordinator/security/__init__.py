"""Tokens, TLS and files with secrets."""
