"""Where preference pairs come from: JSON Lines files and Hugging Face datasets, through a column mapping.

Rows come out as plain dicts with a `where` for messages; `pair_of_row` turns one into messages and a pair.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preforch_models.conversation import Message, conversation_text
from preforch_models.objectives import Record, explain
from pydantic import ValidationError

from preforch_training.folds import position_of
from preforch_training.records import OVERALL

_HH_TURN = re.compile(r"\n\n(Human|Assistant):")


class Columns(Record):
    """Names of a source's columns. `prompt` may hold a string, a list of messages, or HH's "\\n\\nHuman: ..." text."""

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    objective: str | None = None


@dataclass(frozen=True)
class RowPair:
    """The comparison in a row."""

    objective: str
    chosen: str
    rejected: str


def jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(file:line, row). Raises ValueError for a file that is not there; a line that is no JSON comes out as a string,
    so that it is reported like any other bad record."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = line.rstrip(b"\n").decode(errors="replace")
            yield f"{path}:{number}", row


def hugging_face_rows(dataset: str, *, name: str | None, split: str, revision: str) -> Iterator[tuple[str, Any]]:
    """(dataset:row, row) of a dataset on the hub, or of a local folder in its format."""
    from datasets import load_dataset

    rows = load_dataset(dataset, name, split=split, revision=None if Path(dataset).exists() else revision)
    for number, row in enumerate(rows):
        yield f"{dataset}[{split}]:{number}", row


def pair_of_row(
    row: Any, columns: Columns, *, objective: str, names: tuple[str, ...]
) -> tuple[tuple[Message, ...], RowPair]:
    """Messages and comparison of one row. Raises ValueError naming the column and what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, got {str(row)[:80]!r}")
    wanted = [columns.prompt, columns.chosen, columns.rejected] + ([columns.objective] if columns.objective else [])
    for column in wanted:
        if column not in row:
            raise ValueError(f"column {column!r} is missing; the row has {sorted(row)}")
    messages = messages_of(row[columns.prompt], column=columns.prompt)
    chosen, rejected = (response_of(row[c], column=c) for c in (columns.chosen, columns.rejected))
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same response")
    compared = row[columns.objective] if columns.objective else objective
    if compared not in (*names, OVERALL):
        raise ValueError(f"objective {compared!r}: allowed are {[*names, OVERALL]}")
    return messages, RowPair(objective=compared, chosen=chosen, rejected=rejected)


def messages_of(value: Any, *, column: str) -> tuple[Message, ...]:
    """Messages of a prompt column."""
    if isinstance(value, str) and value.startswith("\n\nHuman:"):
        parts = _HH_TURN.split(value)[1:]
        turns = zip(parts[::2], parts[1::2], strict=True)
        roles = {"Human": "user", "Assistant": "assistant"}
        messages = tuple(Message(role=roles[who], content=text.strip()) for who, text in turns)
        # The last turn is the empty "Assistant:" that the response completes.
        messages = messages[:-1] if messages[-1].role == "assistant" and not messages[-1].content else messages
    elif isinstance(value, str):
        messages = (Message(role="user", content=value),)
    elif isinstance(value, list):
        try:
            messages = tuple(Message.model_validate(entry) for entry in value)
        except ValidationError as error:
            raise ValueError(f"column {column!r}: {explain(error)}") from error
    else:
        raise ValueError(f"column {column!r} must be a string or a list of messages, got {type(value).__name__}")
    if not conversation_text(messages).strip():
        raise ValueError(f"column {column!r} is empty")
    return messages


def response_of(value: Any, *, column: str) -> str:
    """Response text of a column: a string, or a list of messages whose last one is the response."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"column {column!r} must be a non-empty response, got {value!r:.80}")
    return value.strip()


def split_of(messages: tuple[Message, ...], *, validation: float, test: float) -> tuple[str, str]:
    """(prompt id, split) from a hash of the normalised first user turn, so that no prompt is on two sides.

    The id covers the whole conversation; conversations that begin alike share a split.
    """
    position = position_of(messages)
    whole = json.dumps([message.model_dump() for message in messages], ensure_ascii=False)
    prompt_id = hashlib.sha256(whole.encode()).hexdigest()[:16]
    if position < test:
        return prompt_id, "test"
    return prompt_id, "validation" if position < test + validation else "train"
