"""Stage `data`: sources of preference data become prompts and pairs, checked and split by prompt."""
