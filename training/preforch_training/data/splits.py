"""Folds and splits by prompt: conversations that begin alike are never on two sides.

In:  messages. Out: a key of the normalised first user turn, and what is drawn from its hash.
"""

import hashlib
import json
from collections.abc import Sequence

from preforch_models.conversation import Message


def first_turn(messages: Sequence[Message]) -> str:
    """The first user turn without regard to case and white space: what makes two prompts alike."""
    first = next(message.content for message in messages if message.role == "user")
    return " ".join(first.lower().split())


def position_of(messages: Sequence[Message]) -> float:
    """A number in [0, 1) from a hash of the first user turn."""
    return int.from_bytes(hashlib.sha256(first_turn(messages).encode()).digest()[:8], "big") / 2**64


def fold_of(messages: Sequence[Message], folds: int) -> int:
    """The fold of a prompt, 0 .. folds - 1: which reward models have not seen it."""
    # Another digit of the same number than the one that splits, or else training folds would be uneven.
    return int(position_of(messages) * 10_000 * folds) % folds


def split_of(messages: tuple[Message, ...], *, validation: float, test: float) -> tuple[str, str]:
    """(prompt id, split) from a hash of the normalised first user turn, so that no prompt is on two sides.

    The id covers the whole conversation; conversations that begin alike share a split.
    """
    position = position_of(messages)
    whole = json.dumps([message.model_dump() for message in messages], ensure_ascii=False)
    prompt_id = hashlib.sha256(whole.encode()).hexdigest()[:16]
    if position < test:
        return prompt_id, "test"
    return prompt_id, "validation" if position < test + validation else "train"
