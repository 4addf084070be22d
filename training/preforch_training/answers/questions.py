"""Questions of a benchmark, and a policy's answers to them.

In:  rows of a benchmark's own question file. Out: `Question`, the same for all benchmarks.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from preforch_models.objectives import Record
from preforch_models.weights import Weights, assignments
from pydantic import ConfigDict, Field

from preforch_training.records import RecordError, each_record

Text = Annotated[str, Field(pattern=r"\S")]
"""Not blank: a policy cannot be asked nothing."""
Key = str | int
R = TypeVar("R", bound="QuestionRow")


class QuestionRow(Record):
    """A row of a question file. What else it holds is for others."""

    model_config = ConfigDict(extra="ignore")


@dataclass(frozen=True)
class Question:
    """`where`: its place in the file. `key`: what the judge finds its answer by. `turns`: of the user, each
    asked after the answer to the one before."""

    where: str
    key: Key
    turns: tuple[str, ...]
    temperature: float | None = None
    """What the benchmark wants it answered at; None: it does not say."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """What the answer repeats of the row."""


@dataclass(frozen=True)
class Turn:
    """One answer. `tokens`: of the policy's tokenizer. `weights`: those asked with, None of a policy that
    reads none. `finished`: the policy ended it, the token limit did not."""

    text: str
    tokens: int
    weights: Weights | None
    finished: bool

    @property
    def asked_with(self) -> str | None:
        """The weights as text, since AlpacaEval compares rows by hash, which a mapping has not."""
        return None if self.weights is None else assignments(self.weights)


@dataclass(frozen=True)
class Answer:
    """The answers to all turns of a question."""

    question: Question
    turns: tuple[Turn, ...]

    def id_by(self, model: str) -> str:
        """22 characters, as their ids have; the same for the same texts."""
        content = json.dumps([model, self.question.key, [turn.text for turn in self.turns]])
        return hashlib.sha256(content.encode()).hexdigest()[:22]


def read_lines(path: Path, row: type[R], question: Callable[[R, str], Question]) -> list[Question]:
    """The questions of a file with one JSON object a line. Raises RecordError naming file, line and field."""
    try:
        rows = list(each_record(path, row))
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8: {error}") from error
    return distinct([question(found, f"{path}:{number}") for number, found in enumerate(rows, 1)])


def distinct(questions: Sequence[Question]) -> list[Question]:
    """The questions. Raises RecordError for a key that occurs twice: one of the answers would be lost."""
    first: dict[Key, Question] = {}
    for question in questions:
        other = first.setdefault(question.key, question)
        if other is not question:
            raise RecordError(
                f"{question.where}: the id {question.key!r} is that of {other.where} too; each needs its own"
            )
    return list(questions)
