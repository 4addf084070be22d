"""What one row holds: its messages, its prompt and responses, and what it compares."""
