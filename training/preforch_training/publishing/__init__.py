"""Model cards of artifacts, and the way to a hub."""
