"""The word problems of the tutor world: drawn from wordings and numbers, and read back.

In: a split. Out: texts (`problems`), and of any of them what it says (`read_problem`).

A problem starts from a number and has two or three operations, in the order in which they are to be carried
out, at most one of them a multiplication. All values on the way are 1 to 99. Problems of the test splits are
never those of training; where numbers are held out they also start from a range of numbers that no training
problem starts from, though training solutions pass through it. A model that is trained from scratch knows
their digits, and has to put them together anew.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

Sign = Literal["+", "-", "x"]
SIGNS: tuple[Sign, ...] = ("+", "-", "x")
NAMES = ("Mia", "Ben", "Zoe", "Tom", "Ida", "Max", "Eva", "Leo")
THINGS = (
    "apples", "marbles", "stickers", "shells", "coins",
    "cards", "pencils", "balloons", "cookies", "stars",
)  # fmt: skip
STARTS = (*range(4, 15), *range(20, 30))
HELD_OUT_STARTS = tuple(range(15, 20))
LOWEST, HIGHEST = 1, 99
_PROBLEMS = {"train": 8000, "test": 2000, "held out": 2000}
_WORDINGS: dict[str, tuple[str, ...]] = {
    "start": (
        "{n} has {x} {t}.",
        "{n} starts with {x} {t}.",
        "There are {x} {t} on the table of {n}.",
        "In the bag of {n} there are {x} {t}.",
    ),
    "+": (
        "{n} finds {x} more.",
        "{n} gets {x} more from a friend.",
        "Grandma brings {x} more.",
        "{n} buys {x} more at the market.",
    ),
    "-": (
        "{n} loses {x} of them.",
        "{n} gives {x} of them away.",
        "A dog runs off with {x} of them.",
        "{n} trades {x} of them for a book.",
    ),
    "x": (
        "Then a magician makes {x} times as many.",
        "{n} saves until there are {x} times as many.",
        "A machine turns them into {x} times as many.",
    ),
    "question": (
        "How many {t} does {n} have now?",
        "How many {t} are there now?",
        "How many {t} are there in the end?",
    ),
}
_KIND_OF_WORDING = {wording: kind for kind, wordings in _WORDINGS.items() for wording in wordings}
_NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")
_THINGS = re.compile(rf"\b({'|'.join(THINGS)})\b")


@dataclass(frozen=True)
class Step:
    """One operation, carried out: left sign right = result."""

    left: int
    sign: Sign
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.result}"


@dataclass(frozen=True)
class Problem:
    """What a problem says."""

    name: str
    things: str
    start: int
    operations: tuple[tuple[Sign, int], ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The solution."""
        found: list[Step] = []
        value = self.start
        for sign, number in self.operations:
            found.append(Step(value, sign, number, carry_out(value, sign, number)))
            value = found[-1].result
        return tuple(found)

    @property
    def answer(self) -> int:
        """The result of the last step."""
        return self.steps[-1].result


def carry_out(left: int, sign: Sign, right: int) -> int:
    """Of two numbers, what the operation makes."""
    return {"+": left + right, "-": left - right, "x": left * right}[sign]


def mark(text: str) -> tuple[str, list[str], list[str]]:
    """A text with `{n}` and `{t}` for the names and the things in it, and these."""
    marked = _THINGS.sub("{t}", _NAME.sub("{n}", text))
    return marked, _NAME.findall(text), _THINGS.findall(text)


@cache
def problems(split: str) -> tuple[str, ...]:
    """Distinct texts; those of `train` and `validation` are the same, other splits have none of them."""
    if split in ("train", "validation"):
        return _draw("train", STARTS, besides=())
    if split == "test_phrasing":
        return _draw("test", STARTS, besides=problems("train"))
    return _draw("held out", HELD_OUT_STARTS, besides=())


@cache
def read_problem(text: str) -> Problem:
    """Raises ValueError for a text that is not a problem of this world."""
    marked, names, things = mark(" ".join(text.split()))
    kinds, numbers = [], []
    for sentence in re.split(r"(?<=[.?]) ", marked):
        numbers += re.findall(r"\b\d+\b", sentence)
        kinds.append(_KIND_OF_WORDING.get(re.sub(r"\b\d+\b", "{x}", sentence), "unknown"))
    signs = [sign for kind in kinds[1:-1] for sign in SIGNS if sign == kind]
    told = kinds == ["start", *signs, "question"] and signs
    if not told or len(set(names)) != 1 or len(set(things)) != 1:
        raise ValueError(f"not a problem of the tutor world: {text!r}")
    start, *others = map(int, numbers)
    return Problem(names[0], things[0], start, tuple(zip(signs, others, strict=True)))


def _draw(bank: str, starts: tuple[int, ...], *, besides: tuple[str, ...]) -> tuple[str, ...]:
    """The problems of one bank, always the same."""
    rng = np.random.default_rng(list(bank.encode()))
    known, found = set(besides), dict[str, None]()
    while len(found) < _PROBLEMS[bank]:
        text = _tell(rng, _draw_problem(rng, starts))
        if text not in known:
            found.setdefault(text)
    return tuple(found)


def _draw_problem(rng: np.random.Generator, starts: tuple[int, ...]) -> Problem:
    while True:
        signs = [SIGNS[i] for i in rng.integers(len(SIGNS), size=2 + int(rng.random() < 0.6))]
        numbers = [int(rng.integers(2, 4 if sign == "x" else 10)) for sign in signs]
        problem = Problem(
            NAMES[rng.integers(len(NAMES))],
            THINGS[rng.integers(len(THINGS))],
            starts[rng.integers(len(starts))],
            tuple(zip(signs, numbers, strict=True)),
        )
        if signs.count("x") <= 1 and all(LOWEST <= step.result <= HIGHEST for step in problem.steps):
            return problem


def _tell(rng: np.random.Generator, problem: Problem) -> str:
    said = [("start", problem.start), *problem.operations, ("question", 0)]
    sentences = [
        _WORDINGS[kind][rng.integers(len(_WORDINGS[kind]))].format(n=problem.name, t=problem.things, x=number)
        for kind, number in said
    ]
    return " ".join(sentences)
