"""The prompts of the demo world: topics, and what a prompt text says.

In: a prompt text. Out: its family, phrasing and topic (`read_prompt`).

A prompt is one phrasing of one family with one topic (adjective + noun) in it.
"""

import re
from dataclasses import dataclass
from functools import cache

from preforch_training.demo.assistant.families import FAMILIES, AssistantFamily
from preforch_training.demo.world import Reading

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


@dataclass(frozen=True)
class AssistantReading(Reading):
    """Of the demo world."""

    family: AssistantFamily


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


def read_prompt(prompt: str) -> AssistantReading:
    """Raises ValueError for a text that is not a prompt of this world."""
    phrasing, topic = mark_topic(" ".join(prompt.split()))
    family = _family_of_phrasing().get(phrasing)
    if family is None or topic is None:
        raise ValueError(
            f"not a prompt of the demo world: {prompt!r}; allowed are its own phrasings, for example "
            f"{_example()!r}"
        )
    return AssistantReading(family, phrasing, topic)


@cache
def _family_of_phrasing() -> dict[str, AssistantFamily]:
    return {text: family for family in FAMILIES for text in family.phrasings + family.held_out_phrasings}


def _example() -> str:
    return FAMILIES[0].phrasings[0].format(t=topics(held_out=False)[0])
