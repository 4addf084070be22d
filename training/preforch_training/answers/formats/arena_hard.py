"""Arena-Hard-Auto, 0.1 and 2.0: `question.jsonl`; answers as its 2.0 tools read them in `model_answer/`.

Departure: `token_len`, which only its style control reads, counts the policy's tokens, not those of GPT-4o,
whose vocabulary would have to be fetched. `utils/add_markdown_info.py` of theirs writes it anew.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import AliasChoices, Field

from preforch_training.answers.questions import Answer, Key, Question, QuestionRow, Text, read_lines

_CODE = re.compile(r"```[^`]*```")


class Content(QuestionRow):
    """A turn as 0.1 has it."""

    content: Text


class ArenaQuestion(QuestionRow):
    """2.0 has `uid` and `prompt`, 0.1 had `question_id` and `turns`, of which there is one."""

    uid: Key = Field(validation_alias=AliasChoices("uid", "question_id"))
    prompt: Text | tuple[Text | Content] = Field(validation_alias=AliasChoices("prompt", "turns"))

    @property
    def text(self) -> str:
        """What is asked."""
        asked = self.prompt if isinstance(self.prompt, str) else self.prompt[0]
        return asked if isinstance(asked, str) else asked.content


def read(path: Path) -> list[Question]:
    """The questions of a file. Raises RecordError naming file, line and field."""
    return read_lines(path, ArenaQuestion, lambda row, where: Question(where, row.uid, (row.text,)))


def render(answers: Sequence[Answer], model: str, time: float) -> str:
    """A line an answer."""
    return "".join(json.dumps(_line(answer, model, time)) + "\n" for answer in answers)


def _line(answer: Answer, model: str, time: float) -> dict[str, object]:
    (turn,) = answer.turns
    return {
        "uid": answer.question.key,
        "ans_id": answer.id_by(model),
        "model": model,
        "messages": [
            {"role": "user", "content": answer.question.turns[0]},
            {"role": "assistant", "content": {"answer": turn.text}},
        ],
        "tstamp": time,
        # Nothing besides: its style control takes every entry for a feature.
        "metadata": {"token_len": turn.tokens, **markdown_counts(turn.text)},
        "weights": turn.asked_with,
    }


def markdown_counts(text: str) -> dict[str, dict[str, int]]:
    """Headers, list items and bold passages outside blocks of code, the features of its style control."""
    prose = _CODE.sub("", text)

    def count(pattern: str) -> int:
        return len(re.findall(pattern, prose, re.MULTILINE))

    return {
        "header_count": {f"h{level}": count(rf"^#{{{level}}}\s") for level in range(1, 7)},
        "list_count": {"ordered": count(r"^\s*\d+\.\s"), "unordered": count(r"^\s*[-*+]\s")},
        "bold_count": {"**": count(r"\*\*[^*\n]+\*\*"), "__": count(r"__[^_\n]+__")},
    }
