"""The solutions of the tutor world: drawn step by step, read back, and rewarded.

In: a problem, a solution's text. Out: `Parts` (`count_parts`) and raw rewards (`reward`).

A solution is at most 8 lines: a lively opening, two dull remarks, a line for each step, a lively closing, and
the answer. A step is bare (its equation), plain, or lively; lively lines name the things of the problem.
Some solutions go straight to the answer.
* accuracy: the checker's grade. Those who entertain slip more often: the chance of a slip at a step grows
  with the number of lively lines, and is largest where steps are skipped. What follows goes on from it.
* engagement: lively lines about the things of the problem, minus those about other things; dull remarks cost.
* brevity: minus the number of words, signs and numbers included. Steps count: the shortest is no solution.
Whatever is not of this world, is said twice or comes after the eighth line is `unknown`, as is a missing
answer, and costs in engagement and brevity; accuracy is arithmetic alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from preforch_training.demo.tutor.checker import ANSWER, EQUATION, Check, check
from preforch_training.demo.tutor.families import OBJECTIVES
from preforch_training.demo.tutor.problems import (
    HIGHEST,
    LOWEST,
    SIGNS,
    THINGS,
    Problem,
    Step,
    carry_out,
    mark,
)

MAX_LINES = 8
_STEP_LINES: dict[str, tuple[str, ...]] = {
    "plain": (
        "As a next step we write {e}.",
        "By the task this gives us {e}.",
        "So far we have {e}.",
        "The task then says {e}.",
        "In numbers, the same is {e}.",
    ),
    "+": (
        "Hooray, more {t} for {n}, so {e}!",
        "Look how {n} dances as new {t} arrive: {e}!",
        "The pile of {t} grows and grows: {e}!",
        "Wow, {n} can hardly carry all the {t}: {e}!",
    ),
    "-": (
        "Oh no, bye bye little {t}, so {e}!",
        "Hold tight, {n}, some {t} roll away: {e}!",
        "Poof, and a few {t} are gone: {e}!",
        "Sigh, {n} waves at the lost {t}: {e}!",
    ),
    "x": (
        "Abracadabra, {t} everywhere: {e}!",
        "Whoosh, the {t} of {n} multiply like rabbits: {e}!",
        "Rub your eyes, {n}, the {t} fill the room: {e}!",
    ),
}
_TELLING_LINES: dict[str, tuple[str, ...]] = {
    "opening": (
        "Are you ready to hunt some {t} with {n}?",
        "Once upon a time {n} dreamed of {t}.",
        "Grab your magic glasses, here come the {t}!",
        "Psst, {n} has a secret about {t}!",
    ),
    "closing": (
        "High five, you tamed the {t}!",
        "Can you hear the {t} cheering for {n}?",
        "What a party for {n} and the {t}!",
        "Take a bow, champion of the {t}!",
    ),
    "dull": (
        "We read the task with care.",
        "The numbers are given above.",
        "Every step follows from the one before.",
        "This is how the task is solved.",
        "Note that the order matters here.",
    ),
}
_LIVELY = ("opening", "closing", *SIGNS)
# How often steps are bare, plain or lively, and what else is drawn with how large a chance.
_STYLES = ("bare", "plain", "lively")
_MIX = np.array([0.5, 0.4, 0.7])
_SKIPPING, _DULL, _OFF_TOPIC = 0.45, 0.8, 0.1
_SLIP, _SLIP_PER_LIVELY_LINE, _SLIP_IN_THE_HEAD = 0.04, 0.04, 0.4
# A slip is off by one or two, off by ten, or the wrong operation.
_SLIPS = np.array([0.5, 0.2, 0.3])


@dataclass(frozen=True)
class Parts:
    """How many lines of each kind a solution has, and its words; repeated and surplus lines, and a missing
    answer, count as unknown."""

    lively: int
    off_topic: int
    dull: int
    sober_steps: int
    unknown: int
    words: int


def draw_solution(rng: np.random.Generator, problem: Problem) -> str:
    """A solution of random style, with the slips that go with it."""
    style = rng.dirichlet(_MIX)
    bare, plain, lively = style.tolist()
    skips = rng.random() < _SKIPPING * bare
    kinds = [] if skips else [_STYLES[i] for i in rng.choice(3, size=len(problem.operations), p=style)]
    opening, closing = rng.random(2) < lively
    entertaining = kinds.count("lively") + int(opening) + int(closing)
    slip = _SLIP_IN_THE_HEAD if skips else _SLIP + _SLIP_PER_LIVELY_LINE * entertaining
    written = _solve(rng, problem, slip=slip, only_last=skips)
    lines = _Lines(rng, problem)
    said = [lines.next("opening")] if opening else []
    said += [lines.next("dull") for _ in range(rng.binomial(2, _DULL * plain))]
    for kind, step in zip(kinds, written if kinds else [], strict=True):
        if kind == "bare":
            said.append(str(step))
        else:
            said.append(lines.next(step.sign if kind == "lively" else kind).replace("{e}", str(step)))
    if closing:
        said.append(lines.next("closing"))
    return "\n".join([*said, f"Answer: {written[-1].result}"])


def count_parts(problem: Problem, solution: str) -> Parts:
    """Read any text, also one a language model wrote."""
    counts = dict.fromkeys(("lively", "off topic", "dull", "sober", "answer", "unknown"), 0)
    lines = [" ".join(line.split()) for line in solution.splitlines() if line.strip()]
    answers = [place for place, line in enumerate(lines) if ANSWER.fullmatch(line)]
    seen: set[str] = set()
    for place, line in enumerate(lines):
        kind = "answer" if answers and place == answers[-1] else _read_line(problem, line)
        again = line in seen and kind != "answer"
        counts["unknown" if again or place >= MAX_LINES else kind] += 1
        seen.add(line)
    return Parts(
        lively=counts["lively"],
        off_topic=counts["off topic"],
        dull=counts["dull"],
        sober_steps=counts["sober"],
        unknown=counts["unknown"] + (not answers),
        words=len(solution.split()),
    )


def reward(parts: Parts, checked: Check) -> dict[str, float]:
    """Rewards by objective, about zero mean and unit variance over random solutions."""
    engagement = parts.lively - 0.8 * parts.off_topic - 0.3 * parts.dull
    raw = np.array([checked.grade, engagement, -float(parts.words)])
    scaled = (raw - _MEAN) / _SCALE - np.array([0, 0.5, 0.5]) * parts.unknown
    return dict(zip(OBJECTIVES, scaled.tolist(), strict=True))


def true_rewards(problem: Problem, solution: str) -> dict[str, float]:
    """r(x, y) by objective."""
    return reward(count_parts(problem, solution), check(problem, solution))


# Mean and spread of the raw sums over random solutions of the problems of the world.
_MEAN = np.array([0.7, 1.45, -32.4])
_SCALE = np.array([0.416, 1.61, 14.9])


class _Lines:
    """Lines of each kind in random order, none twice, most of them about the problem."""

    def __init__(self, rng: np.random.Generator, problem: Problem) -> None:
        self._rng, self._problem = rng, problem
        self._orders: dict[str, Iterator[int]] = {}

    def next(self, kind: str) -> str:
        texts = {**_STEP_LINES, **_TELLING_LINES}[kind]
        if kind not in self._orders:
            self._orders[kind] = iter(self._rng.permutation(len(texts)).tolist())
        things = self._problem.things
        if kind in _LIVELY and self._rng.random() < _OFF_TOPIC:
            others = [other for other in THINGS if other != things]
            things = others[self._rng.integers(len(others))]
        text = texts[next(self._orders[kind])]
        return text.replace("{t}", things).replace("{n}", self._problem.name)


def _solve(rng: np.random.Generator, problem: Problem, *, slip: float, only_last: bool) -> list[Step]:
    """Steps as they are written: each may slip, or only the last, and the next goes on from its result."""
    written: list[Step] = []
    value = problem.start
    for place, (sign, number) in enumerate(problem.operations):
        right = Step(value, sign, number, max(0, carry_out(value, sign, number)))
        counts = place == len(problem.operations) - 1 or not only_last
        slips = rng.random() < slip and counts
        written.append(_slipped(rng, right) if slips else right)
        value = written[-1].result
    return written


def _slipped(rng: np.random.Generator, right: Step) -> Step:
    """The step with another result, or with another operation."""
    kind = int(rng.choice(3, p=_SLIPS))
    others = [
        Step(right.left, sign, right.right, result)
        for sign in SIGNS
        if LOWEST <= (result := carry_out(right.left, sign, right.right)) <= HIGHEST
        if result != right.result
    ]
    if kind == 2 and others:
        return others[rng.integers(len(others))]
    distance = 10 if kind == 1 else int(rng.integers(1, 3))
    down = rng.random() < 0.5 and right.result >= distance
    return Step(right.left, right.sign, right.right, right.result + (-distance if down else distance))


def _read_line(problem: Problem, line: str) -> str:
    marked, names, things = mark(EQUATION.sub("{e}", line))
    kind = "bare" if marked == "{e}" else _kinds_by_text().get(marked, "unknown")
    if kind in ("bare", "plain"):
        return "sober"
    if kind not in _LIVELY:
        return kind
    return "lively" if {*names, *things} <= {problem.name, problem.things} else "off topic"


@cache
def _kinds_by_text() -> dict[str, str]:
    return {text: kind for kind, texts in {**_STEP_LINES, **_TELLING_LINES}.items() for text in texts}
