"""`preforch plan`: what a run takes, before anything is loaded or fetched."""
