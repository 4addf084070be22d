"""A row on its way: what is wrong with it, or what it says."""

import json
import re
from collections import Counter
from typing import Any, NamedTuple

from preforch_models.conversation import Message

from preforch_training.data.config import Source

Turns = tuple[Message, ...]
_NOTHING = object()
_PLACE = re.compile(r"\b(turn|message) \d+\b")


class BadRow(ValueError):
    """A row that cannot be read. `reason`: without what was found there and in which turn, so that rows can
    be counted by it."""

    def __init__(self, reason: str, found: object = _NOTHING, *, says: str = ", got ") -> None:
        self.reason = _PLACE.sub(r"a \1", reason)
        super().__init__(reason if found is _NOTHING else f"{reason}{says}{found!r:.200}")


class Unread(NamedTuple):
    """What a file has in a row's place that is none."""

    reason: str
    found: str


class RowPrompt(NamedTuple):
    """The prompt of a row."""

    messages: Turns
    category: str


class RowPair(NamedTuple):
    """The comparison in a row."""

    objective: str
    chosen: str
    rejected: str


class Row(NamedTuple):
    """What one row says. `left_out`: what of it makes no pair, and how often: ties, missing ratings, turns
    that a setting leaves out."""

    prompt: RowPrompt
    pairs: tuple[RowPair, ...]
    left_out: Counter[str]


def open_row(row: Any, source: Source) -> dict[str, Any]:
    """The row as an object, its JSON columns decoded. Raises BadRow."""
    if isinstance(row, Unread):
        raise BadRow(row.reason, row.found)
    if not isinstance(row, dict):
        raise BadRow("expected a JSON object", row if isinstance(row, str) else json.dumps(row, default=str))
    opened = row
    for column in source.json_columns:
        try:
            value = value_at(opened, column)
        except BadRow:
            continue  # whoever reads the column says that it is missing
        if isinstance(value, str):
            try:
                opened = _replaced(opened, column.split("."), json.loads(value))
            except (ValueError, RecursionError) as error:
                raise BadRow(f"column {column!r} is not JSON, as json_columns says", value) from error
    return opened


def _replaced(holder: Any, path: list[str], value: Any) -> Any:
    """An object or a list with another value in one place."""
    first, *rest = path
    if isinstance(holder, list):
        number = int(first)
        inner = _replaced(holder[number], rest, value) if rest else value
        return [*holder[:number], inner, *holder[number + 1 :]]
    if ".".join(path) in holder:
        return {**holder, ".".join(path): value}
    return {**holder, first: _replaced(holder[first], rest, value) if rest else value}


def value_at(row: dict[str, Any], column: str) -> Any:
    """What a row holds in a column; "a.b" is entry b of column a, "a.0" its first. Raises BadRow naming what
    is missing."""
    # A flat file may have a dot in a column's very name.
    if column in row:
        return row[column]
    value: Any = row
    place = "the row"
    for part in column.split("."):
        if isinstance(value, list) and part.isdecimal():
            if int(part) >= len(value):
                raise BadRow(f"column {column!r} is missing; {place} is a list of fewer entries", len(value))
            value = value[int(part)]
        elif not isinstance(value, dict):
            raise BadRow(f"column {column!r}: {place} must be an object", value)
        elif part not in value:
            keys = sorted(map(str, value))
            raise BadRow(f"column {column!r} is missing", keys, says=f"; {place} has ")
        else:
            value = value[part]
        place = repr(part)
    return value


def entries_of(row: Any, source: Source) -> list[tuple[int, Any]]:
    """(number, row) of every object in the list that the source's column `each` holds, with the other columns
    of its row. Raises BadRow for a row without such a list."""
    assert source.each is not None
    whole = open_row(row, source)
    entries = value_at(whole, source.each)
    if not isinstance(entries, list) or not entries:
        raise BadRow(f"column {source.each!r} (each) must be a list of objects", entries)
    shared = {key: value for key, value in whole.items() if key != source.each}
    return [
        (number, shared | open_row(entry, source) if isinstance(entry, dict) else entry)
        for number, entry in enumerate(entries)
    ]


def check_no_more(row: dict[str, Any], columns: tuple[str, ...]) -> None:
    """Raise BadRow where a list has more entries than the columns name: the others would be lost."""
    named: dict[str, set[int]] = {}
    for column in columns:
        parts = column.split(".")
        for k, part in enumerate(parts):
            if k and part.isdecimal() and column not in row:
                named.setdefault(".".join(parts[:k]), set()).add(int(part))
    for parent, numbers in named.items():
        found = value_at(row, parent)
        if isinstance(found, list) and len(found) > len(numbers):
            raise BadRow(
                f"column {parent!r} is a list of which the source names {sorted(numbers)} alone",
                f"{len(found)} entries",
            )
