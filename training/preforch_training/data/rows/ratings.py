"""Rated responses of one prompt become pairs: of every two that were rated apart, the better one is chosen.

In:  rows that hold one response and its ratings, objective -> column.
Out: `RowPair`s by key, at most so many per objective. Neither key nor draw depends on the order of the rows.

1. A response that occurs in several rows counts once, with the mean of its ratings. Rows that contradict each
   other (true, false) so come out in the middle, and in no pair at all where `min_gap` is the distance of the
   two labels.
2. Ties, and gaps below `min_gap`, are no pair.
3. Overall (`min`) a response is worth its lowest rating: with 0/1 labels the chosen ones have every label.
   One that lacks a rating has no such worth.
4. A missing rating is missing for its objective alone.
"""

import hashlib
import heapq
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

from preforch_training.data.config import Source
from preforch_training.data.rows.pairs import read_conversation
from preforch_training.data.rows.record import BadRow, RowPair, RowPrompt, value_at
from preforch_training.records import OVERALL


@dataclass(frozen=True)
class Rated:
    """One response and its ratings by objective; higher is better, None is missing."""

    response: str
    ratings: dict[str, float | None]


def read_rated(row: dict[str, Any], source: Source) -> tuple[RowPrompt, Rated, Counter[str]]:
    """Prompt, rated response, and how many ratings are missing. Raises BadRow naming the column and what is
    wrong with it."""
    left_out: Counter[str] = Counter()
    column = source.columns.response
    prompt, (response,) = read_conversation(row, source, {column: value_at(row, column)}, left_out)
    ratings = {}
    for name, rating in source.ratings.items():
        assert isinstance(rating, str)
        ratings[name] = rating_of(row, rating, missing=source.missing)
        if ratings[name] is None:
            left_out[f"{name}: missing"] += 1
    return prompt, Rated(response, ratings), left_out


def rating_of(row: dict[str, Any], column: str, *, missing: Sequence[str]) -> float | None:
    """A rating so that higher is better: that of "-column" is turned round. True and false are 1 and 0, "4"
    is 4. None where it is missing."""
    sign, name = (-1.0, column[1:]) if column.startswith("-") else (1.0, column)
    value = plain_value(row, name, missing=missing)
    if value is None:
        return None
    try:
        rating = float({"true": 1, "false": 0}.get(str(value).lower(), value))
    except (ValueError, TypeError, OverflowError):
        rating = math.nan
    if not math.isfinite(rating):
        raise BadRow(
            f"column {name!r} must be a finite number, true or false, or one of {list(missing)}", value
        )
    return sign * rating


def plain_value(row: dict[str, Any], column: str, *, missing: Sequence[str]) -> Any:
    """What a column says, a whole number as such, however a file writes it. None where it says nothing: null
    or inside of null, a NaN, one of the words for it. Raises BadRow where there is no such column."""
    try:
        value = value_at(row, column)
    except BadRow:
        parent = column.rpartition(".")[0]
        if parent and plain_value(row, parent, missing=()) is None:
            return None
        raise
    if value is None or (isinstance(value, str) and value in missing):
        return None
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return None
        value = float(value)
    if isinstance(value, str) and re.fullmatch(r"-?\d+\.0+", value):
        value = float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_gap(difference: float, min_gap: float) -> bool:
    """Whether two ratings are far enough apart."""
    # Without the small number 0.75 and 0.65 would be less than 0.1 apart.
    return abs(difference) >= min_gap - 1e-9


def rated_pairs(
    pool: Sequence[Rated],
    *,
    prompt_id: str,
    overall: Literal["off", "min"],
    min_gap: float,
    limit: int,
    seed: int,
) -> tuple[dict[str, RowPair], Counter[str]]:
    """Pairs of a prompt's rated responses, at most `limit` per objective, by their key; and what made
    none."""
    by_response = mean_ratings(pool)
    if overall == "min":
        for ratings in by_response.values():
            known = [rating for rating in ratings.values() if rating is not None]
            ratings[OVERALL] = min(known) if len(known) == len(ratings) else None
    drawn: dict[str, RowPair] = {}
    left_out: Counter[str] = Counter({"responses rated again": len(pool) - len(by_response)})
    left_out["prompts with one response"] = int(len(by_response) == 1)
    if overall == "min":
        left_out["overall: missing"] = sum(ratings[OVERALL] is None for ratings in by_response.values())
    for objective in next(iter(by_response.values())):
        rated = {text: rating for text, row in by_response.items() if (rating := row[objective]) is not None}
        gaps = [
            (one, other) if first > second else (other, one)
            for (one, first), (other, second) in combinations(rated.items(), 2)
            if is_gap(first - second, min_gap)
        ]
        keyed = ((_hash(prompt_id, objective, *pair), pair) for pair in gaps)
        # As many as a thousand responses have half a million pairs.
        kept = heapq.nsmallest(limit, ((_hash(str(seed), key), key, pair) for key, pair in keyed))
        drawn |= {key: RowPair(objective, *pair) for _, key, pair in kept}
        left_out[f"{objective}: ties"] = len(rated) * (len(rated) - 1) // 2 - len(gaps)
        left_out[f"{objective}: pairs beyond pairs_per_prompt"] = len(gaps) - len(kept)
    return drawn, left_out


def mean_ratings(pool: Sequence[Rated]) -> dict[str, dict[str, float | None]]:
    """Ratings by response and objective, the mean of those that are there where a response was rated more
    than once."""
    rows: dict[str, list[Rated]] = {}
    for rated in pool:
        rows.setdefault(rated.response, []).append(rated)
    means: dict[str, dict[str, float | None]] = {}
    for response, same in rows.items():
        known = {
            name: [rating for rated in same if (rating := rated.ratings[name]) is not None]
            for name in same[0].ratings
        }
        means[response] = {name: fmean(ratings) if ratings else None for name, ratings in known.items()}
    return means


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]
