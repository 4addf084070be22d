"""Recommendations by text, the least recently used dropped first.

In:  `text_key(revision, precision)` gives the key of a text under one bundle; keys are digests, so that a cache holds
     no prompt and its size is bounded by its entries (about 700 bytes each). Out: what was computed, unchanged.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

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


class Cache(Generic[Answer]):
    """Up to `entries` answers; 0 keeps none. Belongs to one thread."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._answers: OrderedDict[Key, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: Key) -> Answer | None:
        """The answer, which is now the most recently used one; None where there is none."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: Key, answer: Answer) -> None:
        """Keep an answer, and drop the least recently used one where there are too many."""
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._entries:
            self._answers.popitem(last=False)
