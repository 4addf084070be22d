"""Where f(x) should be unsure, and where it should not change: unlike prompts, other wordings."""
