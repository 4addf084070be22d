"""The prompts of the demo world: topics, and what a prompt text says.

In: a prompt text. Out: its family, phrasing and topic (`read_prompt`) and its true weights (`true_weights`).

A prompt is one phrasing of one family with one topic (adjective + noun) in it.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from preforch_training.demo.families import FAMILIES, OBJECTIVES, Family

# No adjective begins with a vowel sound, so that "a {t}" is always right.
ADJECTIVES = (
    "red", "blue", "green", "yellow", "silver", "black", "tiny",
    "huge", "heavy", "dusty", "shiny", "cheap", "fancy", "vintage",
)  # fmt: skip
NOUNS = (
    "bicycle", "kettle", "guitar", "ladder", "camera", "lantern", "blanket", "clock", "radio",
    "tent", "piano", "umbrella", "mirror", "canoe", "lamp", "suitcase", "violin", "telescope",
)  # fmt: skip
_TOPIC = re.compile(rf"\b({'|'.join(ADJECTIVES)}) ({'|'.join(NOUNS)})\b")
_JITTER = 0.05


@dataclass(frozen=True)
class Reading:
    """What a prompt text says."""

    family: Family
    phrasing: str
    topic: str


@cache
def topics(*, held_out: bool) -> tuple[str, ...]:
    """Every adjective and every noun occurs on both sides; a combination occurs on one."""
    return tuple(
        f"{adjective} {noun}"
        for i, adjective in enumerate(ADJECTIVES)
        for j, noun in enumerate(NOUNS)
        if ((i + j) % 6 == 5) == held_out
    )


def mark_topic(text: str) -> tuple[str, str | None]:
    """Replace the one topic in a text by `{t}`; the topic is None where there is not exactly one."""
    found = _TOPIC.findall(text)
    if len(found) != 1:
        return text, None
    return _TOPIC.sub("{t}", text), " ".join(found[0])


def read_prompt(prompt: str) -> Reading:
    """Raises ValueError for a text that is not a prompt of this world."""
    phrasing, topic = mark_topic(" ".join(prompt.split()))
    family = _family_of_phrasing().get(phrasing)
    if family is None or topic is None:
        raise ValueError(
            f"not a prompt of the demo world: {prompt!r}; allowed are its own phrasings, for example "
            f"{_example()!r}"
        )
    return Reading(family, phrasing, topic)


def true_weights(prompt: str, objectives: Sequence[str] = OBJECTIVES) -> dict[str, float]:
    """The weights w°(x), summing to 1: those of the family, varied a little by a hash of the text. Of some
    objectives alone: as they stand to each other among all of them."""
    family = read_prompt(prompt).family
    digest = hashlib.sha256(" ".join(prompt.split()).encode()).digest()
    moved = [
        max(0.02, weight + _JITTER * (2 * int.from_bytes(digest[4 * k : 4 * k + 4], "big") / 2**32 - 1))
        for k, weight in enumerate(family.weights)
    ]
    known = dict(zip(OBJECTIVES, moved, strict=True))
    total = sum(known[name] for name in objectives)
    return {name: known[name] / total for name in objectives}


@cache
def _family_of_phrasing() -> dict[str, Family]:
    return {text: family for family in FAMILIES for text in family.phrasings + family.held_out_phrasings}


def _example() -> str:
    return FAMILIES[0].phrasings[0].format(t=topics(held_out=False)[0])
