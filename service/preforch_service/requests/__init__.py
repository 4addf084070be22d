"""What a request may hold, and what of it reaches the engine."""
