"""OpenAI's Responses: which fields reach the engine, and how items are read."""
