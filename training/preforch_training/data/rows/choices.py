"""Rows that name several responses and say otherwise which is better: a choice, a signed strength, or scores.

In:  a row of a source with `columns.responses`. Out: its pairs of every objective that it compares.
Ties, preferences weaker than `min_gap` and what is missing make no pair, and are counted.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Literal

from preforch_training.data.config import Source
from preforch_training.data.rows.pairs import read_conversation
from preforch_training.data.rows.ratings import is_gap, plain_value, rating_of
from preforch_training.data.rows.record import BadRow, Row, RowPair, value_at


def read_choices(row: dict[str, Any], source: Source) -> Row:
    """Prompt and pairs of a row."""
    left_out: Counter[str] = Counter()
    sides = {column: value_at(row, column) for column in source.columns.responses}
    prompt, responses = read_conversation(row, source, sides, left_out)
    if len(set(responses)) == 1:
        raise BadRow("the responses are all the same")
    pairs = []
    for objective in source.compared:
        for better, worse in _preferred(row, source, objective, left_out):
            if responses[better] == responses[worse]:
                left_out["equal responses"] += 1
            else:
                pairs.append(RowPair(objective, responses[better], responses[worse]))
    return Row(prompt, tuple(pairs), left_out)


def _preferred(
    row: dict[str, Any], source: Source, objective: str, left_out: Counter[str]
) -> Iterator[tuple[int, int]]:
    """(number of the better response, number of the worse one)."""
    count = len(source.columns.responses)
    if objective in source.better:
        best = _choice(row, source, source.better[objective])
        if isinstance(best, str):
            left_out[f"{objective}: {best}"] += 1
        else:
            yield from ((best, other) for other in range(count) if other != best)
        return
    if objective in source.strength:
        strength = _strength(row, source, source.strength[objective])
        ratings: list[float | None] = [None if strength is None else 0.0, strength]
    else:
        ratings = [rating_of(row, column, missing=source.missing) for column in source.ratings[objective]]
    for one, other in combinations(range(count), 2):
        first, second = ratings[one], ratings[other]
        if first is None or second is None:
            left_out[f"{objective}: missing"] += 1
        elif not is_gap(first - second, source.min_gap):
            left_out[f"{objective}: ties"] += 1
        else:
            yield (one, other) if first > second else (other, one)


def _strength(row: dict[str, Any], source: Source, column: str) -> float | None:
    """A signed number. Of true and false nobody knows which response is meant."""
    value = plain_value(row, column.removeprefix("-"), missing=source.missing)
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        raise BadRow(
            f"column {column!r} must be a signed number; better with labels reads true and false", value
        )
    return rating_of(row, column, missing=source.missing)


def _choice(row: dict[str, Any], source: Source, column: str) -> int | Literal["missing", "ties"]:
    """Number of the response that a column names."""
    value = plain_value(row, column, missing=source.missing)
    if value is None:
        return "missing"
    # Of true and false nobody knows which response is meant; labels say it.
    name = str(value).lower() if isinstance(value, bool) else str(value)
    if name in source.ties:
        return "ties"
    numbers = tuple(str(number) for number in range(len(source.columns.responses)))
    labels = source.labels or numbers
    if name not in labels:
        hint = "" if source.labels else " (labels names others, in the order of the responses)"
        raise BadRow(
            f"column {column!r} must name the better response: allowed are {[*labels, *source.ties]}{hint}",
            value,
        )
    return labels.index(name)
