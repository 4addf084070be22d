"""The demo world: generated prompts and responses whose true weights and rewards are known (see `world`)."""
