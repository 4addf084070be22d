"""Rows that hold a prompt, or a prompt with a chosen response and rejected ones.

In:  a row as a dict, and how its source is to be read. Out: `Row`. Raises `BadRow`.
"""

import re
from collections import Counter
from typing import Any

from preforch_models.conversation import Message

from preforch_training.data.config import OFF, Columns, Source
from preforch_training.data.rows.conversations import (
    FROM_SIDES,
    prompt_of,
    response_of,
    split_conversation,
    split_off_response,
)
from preforch_training.data.rows.markup import is_transcript
from preforch_training.data.rows.messages import SYSTEM, check_unicode, is_visible
from preforch_training.data.rows.record import (
    BadRow,
    Row,
    RowPair,
    RowPrompt,
    Turns,
    check_no_more,
    value_at,
)
from preforch_training.records import OVERALL

_SYSTEM_COLUMN = re.compile(
    r"((custom|default|full|base|model)[ _-]?)?(system|sys(?=.))[ "
    r"_-]?((prompt|message|instruction)s?|msg|text)?",
    re.IGNORECASE,
)
"""What columns with a system turn are called."""


def read_pairs(row: dict[str, Any], source: Source, names: tuple[str, ...]) -> Row:
    """Prompt and pairs of a row that compares a chosen response with one rejected or several."""
    columns, left_out = source.columns, Counter[str]()
    sides = {columns.chosen: value_at(row, columns.chosen)}
    rejected = value_at(row, columns.rejected)
    # A list of texts or of conversations holds several responses, a list of messages is one.
    if isinstance(rejected, list) and rejected and all(isinstance(entry, str | list) for entry in rejected):
        sides |= {f"{columns.rejected}.{number}": entry for number, entry in enumerate(rejected)}
    else:
        sides[columns.rejected] = rejected
    prompt, (chosen, *others) = read_conversation(row, source, sides, left_out)
    compared = source.objective
    if columns.objective is not None:
        compared = value_at(row, columns.objective)
        check_compared(compared, names)
    if chosen in others:
        raise BadRow("chosen and rejected are the same response")
    if len(set(others)) < len(others):
        left_out["equal responses"] += len(others) - len(set(others))
        others = list(dict.fromkeys(others))
    return Row(prompt, tuple(RowPair(compared, chosen, other) for other in others), left_out)


def read_prompt(row: dict[str, Any], source: Source) -> Row:
    """The prompt of a row whose responses, if it has any, are not wanted."""
    columns, left_out = source.columns, Counter[str]()
    if has_prompt(row, columns):
        turns, _ = _asked(row, source, left_out)
    else:
        value = value_at(row, columns.response)
        turns, _ = split_conversation(value, column=columns.response, marks=source.transcript)
        turns = _with_system(turns, row, columns, left_out)
    return Row(RowPrompt(turns, category_of(row, source)), (), left_out)


def read_conversation(
    row: dict[str, Any], source: Source, sides: dict[str, Any], left_out: Counter[str]
) -> tuple[RowPrompt, list[str]]:
    """The prompt of a row and the responses that the values of some columns are to it."""
    marks = source.transcript
    if has_prompt(row, source.columns):
        turns, continues = _asked(row, source, left_out)
        responses = [
            response_of(value, column=column, prompt=turns, continues=continues, marks=marks)
            for column, value in sides.items()
        ]
    else:
        (first, value), *others = sides.items()
        turns, response = split_off_response(value, column=first, marks=marks)
        responses = [response] + [
            response_of(value, column=column, prompt=turns, strict=True, marks=marks)
            for column, value in others
        ]
        turns = _with_system(turns, row, source.columns, left_out)
    if "." in source.columns.prompt or any("." in column for column in sides):
        check_no_more(row, (source.columns.prompt, *sides))
    return RowPrompt(turns, category_of(row, source)), responses


def has_prompt(row: dict[str, Any], columns: Columns) -> bool:
    """Whether a column holds the prompt; otherwise the sides do."""
    if columns.prompt == OFF:
        return False
    return columns.prompt != "prompt" or "prompt" in row


def _asked(row: dict[str, Any], source: Source, left_out: Counter[str]) -> tuple[Turns, bool]:
    """The prompt of its column, and whether a transcript that a response continues."""
    columns = source.columns
    value = value_at(row, columns.prompt)
    if value is None:
        raise BadRow(f"column {columns.prompt!r} has no prompt; {FROM_SIDES}")
    turns = prompt_of(value, column=columns.prompt, marks=source.transcript)
    continues = isinstance(value, str) and is_transcript(value, source.transcript)
    return _with_system(turns, row, columns, left_out), continues


def _with_system(turns: Turns, row: dict[str, Any], columns: Columns, left_out: Counter[str]) -> Turns:
    """The prompt with the system turn that has a column of its own. Raises BadRow for one that would be
    lost."""
    own = turns[0].content.strip() if turns[0].role in SYSTEM else None
    for column in _system_columns(row, columns):
        value = value_at(row, column)
        if not value or (isinstance(value, str) and (not is_visible(value) or value.strip() == own)):
            continue
        if columns.system == OFF:
            left_out["system turns"] += 1
            continue
        if column != columns.system:
            raise BadRow(
                f"column {column!r} has a system turn that would be lost; columns.system = {column!r} keeps "
                "it, 'off' leaves it out",
                value,
            )
        if not isinstance(value, str):
            raise BadRow(f"column {column!r} must be a string", value)
        check_unicode(value, column=column)
        if own is not None:
            raise BadRow(f"column {column!r} has a system turn, and the prompt begins with another", value)
        turns, own = (Message(role="system", content=value), *turns), value.strip()
    return turns


def _system_columns(row: dict[str, Any], columns: Columns) -> list[str]:
    """Columns with a system turn: the one that is named so in the settings, and what looks like one."""
    named = [] if columns.system in (None, OFF) else [columns.system]
    used = {columns.prompt, columns.chosen, columns.rejected, columns.response, columns.category, *named}
    used |= {columns.objective, *columns.responses}
    found = [name for name in row if "sys" in name.lower() and name not in used]
    return named + [name for name in found if _SYSTEM_COLUMN.fullmatch(name)]


def category_of(row: dict[str, Any], source: Source) -> str:
    """The category of a row's prompt, for the report only; "" where it is null."""
    if source.columns.category is None:
        return source.category
    category = value_at(row, source.columns.category)
    if category is None or isinstance(category, dict | list):
        return ""
    check_unicode(str(category), column=source.columns.category)
    return str(category)


def check_compared(objective: Any, names: tuple[str, ...]) -> None:
    """Raise BadRow unless this is an objective of the run, or `overall`."""
    if objective not in (*names, OVERALL):
        raise BadRow(f"unknown objective: allowed are {[*names, OVERALL]}", objective)
