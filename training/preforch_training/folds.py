"""Folds by prompt: which reward models have seen a prompt."""

import hashlib


def fold_of(prompt_id: str, folds: int) -> int:
    """The fold of a prompt, 0 .. folds - 1, from a hash of its id."""
    return int.from_bytes(hashlib.sha256(prompt_id.encode()).digest()[:8], "big") % folds
