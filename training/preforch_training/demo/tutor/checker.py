"""Whether a solution is right, step by step: what can be verified of the tutor world (METHOD 8).

In: a problem and a solution, or the first lines of one. Out: `Check`; `accuracy` is the same as a reward
function, which a trainer may use too, since it asks for nothing but arithmetic.

A step is a line, and a line is told in any way around at most one equation. Lines, not sentences, since a
lively telling has several sentences to a step, and since a line break is one token of its own: a policy's
step ends where a token does. A step is right where its equation is the next one of the solution, or a later
one, those before having been done in the head. It is wrong where the operation is not the one that the
problem calls for, even if the result is the same, and where it goes on from a wrong result.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from preforch_training.demo.tutor.problems import Problem
from preforch_training.demo.tutor.prompts import read_prompt

EQUATION = re.compile(r"(?<![\d.,])(\d+)\s*([+x-])\s*(\d+)\s*=\s*(-?\d+)(?!\d|[.,]\d)")
ANSWER = re.compile(r"\s*Answer:\s*(-?\d+)[.!]?\s*")


@dataclass(frozen=True)
class Check:
    """`steps`: whether each equation is right, in the order in which they are written; `needed`: how many
    the solution has; `answer`: whether it is right, None where there is none (yet)."""

    steps: tuple[bool, ...]
    needed: int
    answer: bool | None

    @property
    def solved(self) -> bool:
        """Whether there is an answer and it is right, however it was found."""
        return self.answer is True

    @property
    def sound(self) -> bool:
        """Whether nothing written so far is wrong."""
        return all(self.steps) and self.answer is not False

    @property
    def grade(self) -> float:
        """0 to 1: two thirds for the answer, one third for the share of right steps among those that are
        needed, or among those written where they are more."""
        return (2 * self.solved + sum(self.steps) / max(self.needed, len(self.steps))) / 3


def check(problem: Problem, solution: str) -> Check:
    """The last line that is an answer counts; numbers may be of any size."""
    expected = [_spellings(str(step)) for step in problem.steps]
    steps: list[bool] = []
    for equation in EQUATION.finditer(solution):
        left, sign, right, result = equation.groups()
        said = f"{_plain(left)} {sign} {_plain(right)} = {_plain(result)}"
        places = [place for place, spellings in enumerate(expected) if said in spellings]
        steps.append(bool(places))
        if places:
            expected = expected[places[0] + 1 :]
    answers = [found.group(1) for line in solution.splitlines() if (found := ANSWER.fullmatch(line))]
    right_answer = _plain(answers[-1]) == str(problem.answer) if answers else None
    return Check(tuple(steps), len(problem.steps), right_answer)


def check_response(prompt: str, response: str) -> Check:
    """The same for a prompt; ValueError for one that is not of this world."""
    return check(read_prompt(prompt).problem, response)


def accuracy(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A reward function (`kind = "function"`): the grade of each response, 0 to 1."""
    return [check_response(x, y).grade for x, y in zip(prompts, responses, strict=True)]


def _spellings(step: str) -> set[str]:
    """A step, and with its two sides changed where that makes no difference."""
    left, sign, right, equals, result = step.split()
    return {step} if sign == "-" else {step, f"{right} {sign} {left} {equals} {result}"}


def _plain(number: str) -> str:
    """Without leading zeros; as text, which has no limit of length."""
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    return sign + (digits.lstrip("0") or "0")
