"""The demo world: requests to an assistant that is to be helpful, harmless and humorous."""
