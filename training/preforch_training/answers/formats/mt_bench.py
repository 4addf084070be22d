"""MT-Bench: FastChat's `question.jsonl`; answers as its judges read them in `model_answer/` (0.2.36)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, FiniteFloat

from preforch_training.answers.questions import Answer, Key, Question, QuestionRow, Text, read_lines

TEMPERATURES: Mapping[str, float] = MappingProxyType(
    {
        "writing": 0.7,
        "roleplay": 0.7,
        "extraction": 0.0,
        "math": 0.0,
        "coding": 0.0,
        "reasoning": 0.0,
        "stem": 0.1,
        "humanities": 0.1,
    }
)
"""What FastChat answers a category at; a question may say `required_temperature` itself."""
OTHER_TEMPERATURE = 0.7


class MtBenchQuestion(QuestionRow):
    """One or two turns."""

    question_id: Key
    category: Text
    turns: Annotated[tuple[Text, ...], Field(min_length=1, max_length=2)]
    required_temperature: Annotated[FiniteFloat, Field(ge=0)] | None = None

    @property
    def temperature(self) -> float:
        """That of its answers."""
        if self.required_temperature is not None:
            return self.required_temperature
        return TEMPERATURES.get(self.category, OTHER_TEMPERATURE)


def read(path: Path) -> list[Question]:
    """The questions of a file. Raises RecordError naming file, line and field."""
    return read_lines(
        path,
        MtBenchQuestion,
        lambda row, where: Question(where, row.question_id, row.turns, row.temperature),
    )


def render(answers: Sequence[Answer], model: str, time: float) -> str:
    """A line a question, with one choice of as many turns. `weights` is of each turn."""
    return "".join(json.dumps(_line(answer, model, time)) + "\n" for answer in answers)


def _line(answer: Answer, model: str, time: float) -> dict[str, object]:
    return {
        "question_id": answer.question.key,
        "answer_id": answer.id_by(model),
        "model_id": model,
        "choices": [{"index": 0, "turns": [turn.text for turn in answer.turns]}],
        "tstamp": time,
        "weights": [turn.asked_with for turn in answer.turns],
    }
