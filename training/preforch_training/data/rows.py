"""Where preference pairs come from: JSON Lines files and Hugging Face datasets, through a column mapping.

Rows come out as plain dicts with a `where` for messages; `prompt_of_row` and `pair_of_row` say what one
holds, and `ratings.rated_of_row` where it is a rated response.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import load_dataset
from preforch_models.conversation import Message, conversation_text
from preforch_models.objectives import explain
from pydantic import ValidationError

from preforch_training.data.config import Columns
from preforch_training.records import OVERALL

_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant", "prompter": "user"}
"""Roles of HH-RLHF and OpenAssistant in OpenAI's words."""


@dataclass(frozen=True)
class RowPrompt:
    """The prompt of a row."""

    messages: tuple[Message, ...]
    category: str


@dataclass(frozen=True)
class RowPair:
    """The comparison in a row."""

    objective: str
    chosen: str
    rejected: str


def jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(file:line, row). Raises ValueError for a file that is not there.

    A line that is not JSON comes out as a string, so that it is reported like any other bad record.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = line.rstrip(b"\n").decode(errors="replace")
            yield f"{path}:{number}", row


def hugging_face_rows(
    dataset: str, *, name: str | None, split: str, revision: str
) -> Iterator[tuple[str, Any]]:
    """(dataset:row, row) of a dataset on the hub, or of a local folder in its format."""
    rows = load_dataset(dataset, name, split=split, revision=None if Path(dataset).exists() else revision)
    for number, row in enumerate(rows):
        yield f"{dataset}[{split}]:{number}", row


def each_row(rows: Iterable[tuple[str, Any]], column: str) -> Iterator[tuple[str, Any]]:
    """(where.number, entry with its row's other columns) of every entry of a column that holds lists.

    A row without such a list comes out as it is, so that it is reported like any other bad record.
    """
    for where, row in rows:
        entries = row.get(column) if isinstance(row, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            yield where, row
            continue
        shared = {key: value for key, value in row.items() if key != column}
        for number, entry in enumerate(entries):
            yield f"{where}.{number}", shared | entry


def value_at(row: Any, column: str) -> Any:
    """What a row holds in a column; "a.b" is entry b of column a. Raises ValueError naming what is
    missing."""
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, got {str(row)[:80]!r}")
    value, place = row, "the row"
    # A flat file may have a dot in a column's very name.
    for part in [column] if column in row else column.split("."):
        if not isinstance(value, dict):
            raise ValueError(f"column {column!r}: {place} must be an object, got {value!r:.80}")
        if part not in value:
            raise ValueError(f"column {column!r} is missing; {place} has {sorted(value)}")
        value, place = value[part], repr(part)
    return value


def prompt_of_row(row: Any, columns: Columns, *, category: str) -> RowPrompt:
    """Messages and category of one row. Raises ValueError naming the column and what is wrong with it."""
    messages = messages_of(value_at(row, columns.prompt), column=columns.prompt)
    if columns.category is not None:
        category = value_at(row, columns.category)
        if not isinstance(category, str):
            raise ValueError(f"column {columns.category!r} must be a string, got {category!r:.80}")
        check_unicode(category, column=columns.category)
    return RowPrompt(messages=messages, category=category)


def pair_of_row(row: Any, columns: Columns, *, objective: str, names: tuple[str, ...]) -> RowPair:
    """Comparison of one row. Raises ValueError naming the column and what is wrong with it."""
    chosen, rejected = (response_of(value_at(row, c), column=c) for c in (columns.chosen, columns.rejected))
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same response")
    compared = value_at(row, columns.objective) if columns.objective else objective
    check_compared(compared, names)
    return RowPair(objective=compared, chosen=chosen, rejected=rejected)


def check_compared(objective: Any, names: tuple[str, ...]) -> None:
    """Raise ValueError unless this is an objective of the run, or `overall`."""
    if objective not in (*names, OVERALL):
        raise ValueError(f"objective {objective!r}: allowed are {[*names, OVERALL]}")


def messages_of(value: Any, *, column: str) -> tuple[Message, ...]:
    """Messages of a prompt column, with OpenAI's roles: OpenAssistant's "prompter" becomes "user"."""
    if isinstance(value, str) and value.startswith("\n\nHuman:"):
        parts = _HH_TURN.split(value)[1:]
        turns = zip(parts[::2], parts[1::2], strict=True)
        messages = tuple(Message(role=_ROLES[who], content=text.strip()) for who, text in turns)
        # The last turn is the empty "Assistant:" that the response completes.
        messages = (
            messages[:-1] if messages[-1].role == "assistant" and not messages[-1].content else messages
        )
    elif isinstance(value, str):
        messages = (Message(role="user", content=value),)
    elif isinstance(value, list):
        try:
            given = [Message.model_validate(entry) for entry in value]
        except ValidationError as error:
            raise ValueError(f"column {column!r}: {explain(error)}") from error
        messages = tuple(
            Message(role=_ROLES.get(turn.role, turn.role), content=turn.content) for turn in given
        )
    else:
        raise ValueError(
            f"column {column!r} must be a string or a list of messages, got {type(value).__name__}"
        )
    text = conversation_text(messages)
    if not text.strip():
        raise ValueError(f"column {column!r} is empty")
    check_unicode(text, column=column)
    return messages


def response_of(value: Any, *, column: str) -> str:
    """Response text of a column: a string, or a list of messages whose last one is the response."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"column {column!r} must be a non-empty response, got {value!r:.80}")
    check_unicode(value, column=column)
    return value.strip()


def check_unicode(text: str, *, column: str) -> None:
    """Raise ValueError for half a character: JSON can say it ("\\ud800"), but no file can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"column {column!r} is not valid Unicode: {text[error.start]!r}, {error.reason}"
        ) from error
