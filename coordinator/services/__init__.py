"""What the API asks for."""
