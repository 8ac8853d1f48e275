"""What a transfer means. Pure: only the standard library, no I/O, no clock, no chance."""
