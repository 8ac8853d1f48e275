"""Finishes what others began, and purges what nobody needs any more."""
