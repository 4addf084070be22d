"""Prompts with some words replaced, for a policy that must not lean on every word that it reads [ours].

In:  messages, words to replace with. Out: the same turns; of the user's a share of the words are others.

A small policy from scratch has never seen some of the words that it will be asked with, and reinforcement
moves what it does there as well; a policy whose prompts are noisy is held by the weights in its context and
by the words that it knows.
"""

import re
from collections.abc import Sequence

import numpy as np
from preforch_models.conversation import Message

_SPACES = re.compile(r"(\s+)")


def words_of(texts: Sequence[str]) -> list[str]:
    """All words of texts, as often as they occur."""
    return [word for text in texts for word in text.split()]


def noisy(
    messages: Sequence[Message], words: Sequence[str], *, share: float, rng: np.random.Generator
) -> tuple[Message, ...]:
    """The messages, each word of a user turn replaced with probability `share`; spacing stays."""
    return tuple(
        message.model_copy(update={"content": _replace(message.content, words, share, rng)})
        if message.role == "user"
        else message
        for message in messages
    )


def _replace(text: str, words: Sequence[str], share: float, rng: np.random.Generator) -> str:
    parts = _SPACES.split(text)
    return "".join(
        words[int(rng.integers(len(words)))] if part.strip() and rng.random() < share else part
        for part in parts
    )
