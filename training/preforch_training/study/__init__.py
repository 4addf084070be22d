"""The study: which choices of METHOD 2 to 4 hold up on held-out prompts,
and when orchestration is worth it."""
