"""The prompts of the tutor world: one phrasing of one family, with one problem in it.

In: a prompt text. Out: its family, phrasing and problem (`read_prompt`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from preforch_training.demo.tutor.families import FAMILIES
from preforch_training.demo.tutor.problems import Problem, problems, read_problem
from preforch_training.demo.world import Family, Reading


@dataclass(frozen=True)
class TutorReading(Reading):
    """Of the tutor world. `topic` is the problem as it is told."""

    problem: Problem


@cache
def read_prompt(prompt: str) -> TutorReading:
    """Raises ValueError for a text that is not a prompt of this world."""
    text = " ".join(prompt.split())
    for (before, after), (family, phrasing) in _families_by_frame().items():
        if text.startswith(before) and text.endswith(after):
            topic = text[len(before) : len(text) - len(after)]
            try:
                return TutorReading(family, phrasing, topic, read_problem(topic))
            except ValueError:
                continue  # another phrasing may begin alike
    example = FAMILIES[0].phrasings[0].format(t=problems("train")[0])
    raise ValueError(
        f"not a prompt of the tutor world: {prompt!r}; allowed are its own phrasings and problems, for "
        f"example {example!r}"
    )


@cache
def _families_by_frame() -> Mapping[tuple[str, str], tuple[Family, str]]:
    """By what stands before and after the problem."""
    found: dict[tuple[str, str], tuple[Family, str]] = {}
    for family in FAMILIES:
        for phrasing in family.phrasings + family.held_out_phrasings:
            before, _, after = phrasing.partition("{t}")
            found[before, after] = (family, phrasing)
    return found
