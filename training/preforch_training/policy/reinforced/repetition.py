"""Sentences that a response says again, or beyond what is usual: over-optimised rewards like both (METHOD 6).

In:  texts. Out: counts. Nothing is known of the truth: the usual number is that of chosen responses.
"""

import re
from collections.abc import Sequence

import numpy as np

USUAL = 0.95
"""Share of the chosen responses that keep to the usual number of sentences."""
_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


def sentences(text: str) -> list[str]:
    """Sentences, or lines that end without a mark; compared without case and spacing. What has no letter, the
    number of a list, is none."""
    parts = (" ".join(part.split()).casefold() for part in _END.split(text))
    return [part for part in parts if any(character.isalpha() for character in part)]


def usual_number(texts: Sequence[str]) -> int:
    """Sentences that `USUAL` of the texts have at most."""
    return int(np.quantile([len(sentences(text)) for text in texts], USUAL, method="higher"))


def repeated_sentences(text: str) -> int:
    """Sentences that repeat an earlier one."""
    found = sentences(text)
    return len(found) - len(set(found))


def stray_sentences(text: str, *, usual: int) -> int:
    """Sentences that repeat an earlier one, and of the others those beyond the usual number."""
    return repeated_sentences(text) + max(0, len(set(sentences(text))) - usual)
