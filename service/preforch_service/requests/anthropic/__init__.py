"""Anthropic's Messages: which fields reach the engine, and how content blocks are read."""
