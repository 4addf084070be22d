"""Recommendations by text, the least recently used dropped first.

In:  `text_key(revision, precision)` gives the key of a text under one bundle; keys are digests, so that a
     cache holds no prompt and its size is bounded by its entries (about 750 bytes each). Out: what was
     computed, unchanged.
"""

import hashlib
from collections.abc import Callable
from typing import TypeVar

from cachetools import LRUCache

Answer = TypeVar("Answer")
Key = bytes


def text_key(revision: str, precision: str) -> Callable[[str], Key]:
    """The key of a text: the same text under another bundle or in another precision is another one."""
    begun = hashlib.blake2b(f"{revision}\0{precision}\0".encode(), digest_size=16)

    def key(text: str) -> Key:
        hashed = begun.copy()
        hashed.update(text.encode("utf-8"))
        return hashed.digest()

    return key


class Cache(LRUCache[Key, Answer]):
    """At most `entries` answers; 0 keeps none. Belongs to one thread."""

    def __init__(self, entries: int) -> None:
        super().__init__(entries)

    def put(self, key: Key, answer: Answer) -> None:
        """Keep an answer. An LRUCache without room refuses one."""
        if self.maxsize:
            self[key] = answer
