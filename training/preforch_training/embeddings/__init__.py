"""Frozen text vectors, computed once per run, and batches of texts alike in length."""
