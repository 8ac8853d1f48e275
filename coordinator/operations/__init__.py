"""What operators ask for, and in which words they are told."""
