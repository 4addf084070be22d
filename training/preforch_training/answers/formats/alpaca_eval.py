"""AlpacaEval 2: a JSON list of instructions; answers as `alpaca_eval --model_outputs` reads them (0.6.6)."""

import json
from collections.abc import Sequence
from pathlib import Path

from preforch_models.objectives import explain
from pydantic import ValidationError

from preforch_training.answers.questions import Answer, Question, QuestionRow, Text
from preforch_training.records import RecordError


class Instruction(QuestionRow):
    """An entry of their evaluation set; the reference's `output` in it is not ours to repeat."""

    instruction: Text
    dataset: Text | None = None
    datasplit: Text | None = None


def read(path: Path) -> list[Question]:
    """The instructions of a file. Raises RecordError naming file, entry and field."""
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path}: not JSON: {error}") from error
    if not isinstance(entries, list):
        raise RecordError(f"{path}: holds one {type(entries).__name__}; a list of instructions is needed")
    return [_question(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, 1)]


def _question(entry: object, where: str) -> Question:
    try:
        row = Instruction.model_validate(entry)
    except ValidationError as error:
        raise RecordError(f"{where}: {explain(error)}") from error
    return Question(
        where,
        key=row.instruction,
        turns=(row.instruction,),
        kept=row.model_dump(include={"dataset", "datasplit"}, exclude_none=True),
    )


def render(answers: Sequence[Answer], model: str, time: float) -> str:
    """Their `model_outputs`; they know an answer by its instruction, and no time."""
    del time
    outputs = [
        {
            **answer.question.kept,
            "instruction": answer.question.key,
            "output": answer.turns[0].text,
            "generator": model,
            "weights": answer.turns[0].asked_with,
        }
        for answer in answers
    ]
    return json.dumps(outputs, ensure_ascii=False, indent=2) + "\n"
