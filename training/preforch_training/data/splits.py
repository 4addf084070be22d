"""Folds and splits by prompt: conversations that begin alike are never on two sides.

In:  messages. Out: a key of the normalised first user turn, and what is drawn from its hash.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from preforch_models.conversation import Message

quoted = json.encoder.encode_basestring
"""A text as JSON. `json.dumps` makes an encoder anew for every call, which takes longer than the text."""
_encode = json.JSONEncoder(ensure_ascii=False).encode
_NOT_WORDS = re.compile(r"[\W_]+")
_ASCII_MARKS = {code: None for code in range(128) if not chr(code).isalnum()}


def first_turn(messages: Sequence[Message]) -> str:
    """The first user turn without regard to case and white space: what makes two prompts alike."""
    first = next(message.content for message in messages if message.role == "user")
    return " ".join(first.lower().split())


def position_of(messages: Sequence[Message]) -> float:
    """A number in [0, 1) from a hash of the first user turn."""
    return _position(first_turn(messages))


def fold_of(messages: Sequence[Message], folds: int) -> int:
    """The fold of a prompt, 0 .. folds - 1: which reward models have not seen it."""
    # Another digit of the same number than the one that splits, or else training folds would be uneven.
    return int(position_of(messages) * 10_000 * folds) % folds


class Placed(NamedTuple):
    """A prompt's id, its split, what it is a near-duplicate by, and its messages as they are stored."""

    id: str
    split: str
    plain: str
    messages_json: str


def place(messages: tuple[Message, ...], *, validation: float, test: float) -> Placed:
    """Where a prompt belongs: by a hash of its first user turn, so that no prompt is on two sides.

    The id covers the whole conversation; conversations that begin alike share a split.
    """
    turn = first_turn(messages)
    position = _position(turn)
    whole = messages_json(messages)
    split = "test" if position < test else "validation" if position < test + validation else "train"
    return Placed(hashlib.sha256(whole.encode()).hexdigest()[:16], split, plain_words(turn), whole)


def plain_words(turn: str) -> str:
    """A first turn without punctuation and white space; as it is where there is nothing else."""
    kept = turn.translate(_ASCII_MARKS) if turn.isascii() else _NOT_WORDS.sub("", turn)
    return kept or turn


def messages_json(messages: Sequence[Message]) -> str:
    """Messages as they are stored: JSON with a space after commas and colons."""
    turns = (
        f'{{"role": {quoted(message.role)}, "content": {quoted(message.content)}}}'
        if message.is_plain
        else _encode(message.model_dump())
        for message in messages
    )
    return f"[{', '.join(turns)}]"


def _position(turn: str) -> float:
    return int.from_bytes(hashlib.sha256(turn.encode()).digest()[:8], "big") / 2**64
