"""Rated responses of one prompt become pairs: of every two that were rated apart, the better one is chosen.

In:  rows that hold one response and its ratings, objective -> column.
Out: `RowPair`s by key, at most so many per objective. Neither key nor draw depends on the order of the rows.

1. A response that occurs in several rows counts once, with the mean of its ratings. Rows that contradict each
   other (true, false) so come out in the middle, and in no pair at all where `min_gap` is the distance of the
   two labels.
2. Ties, and gaps below `min_gap`, are no pair.
3. Overall (`min`) a response is worth its lowest rating: with 0/1 labels the chosen ones have every label.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

from preforch_training.data.rows import RowPair, response_of, value_at
from preforch_training.records import OVERALL


@dataclass(frozen=True)
class Rated:
    """One response and its ratings by objective; higher is better."""

    response: str
    ratings: dict[str, float]


def rated_of_row(row: Any, *, column: str, ratings: dict[str, str]) -> Rated:
    """The rated response of a row. Raises ValueError naming the column and what is wrong with it."""
    response = response_of(value_at(row, column), column=column)
    return Rated(
        response=response, ratings={name: rating_of(row, rating) for name, rating in ratings.items()}
    )


def rating_of(row: Any, column: str) -> float:
    """A rating so that higher is better: that of "-column" is turned round. True and false are 1 and 0, "4"
    is 4."""
    sign, name = (-1.0, column[1:]) if column.startswith("-") else (1.0, column)
    value = value_at(row, name)
    try:
        rating = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        rating = math.nan
    if not math.isfinite(rating):
        raise ValueError(f"column {name!r} must be a finite number, true or false, got {value!r:.80}")
    return sign * rating


def rated_pairs(
    pool: Sequence[Rated],
    *,
    prompt_id: str,
    overall: Literal["off", "min"],
    min_gap: float,
    limit: int,
    seed: int,
) -> dict[str, RowPair]:
    """Pairs of a prompt's rated responses, at most `limit` per objective, by their key."""
    by_response = mean_ratings(pool)
    if overall == "min":
        by_response = {
            text: {**ratings, OVERALL: min(ratings.values())} for text, ratings in by_response.items()
        }
    drawn: dict[str, RowPair] = {}
    for objective in next(iter(by_response.values())):
        found = {}
        for one, other in combinations(by_response, 2):
            gap = by_response[one][objective] - by_response[other][objective]
            # Without the small number 0.75 and 0.65 would be less than 0.1 apart.
            if abs(gap) >= min_gap - 1e-9:
                chosen, rejected = (one, other) if gap > 0 else (other, one)
                pair = RowPair(objective=objective, chosen=chosen, rejected=rejected)
                found[_hash(prompt_id, objective, chosen, rejected)] = pair
        kept = sorted(found, key=lambda key: _hash(str(seed), key))[:limit]
        drawn |= {key: found[key] for key in kept}
    return drawn


def mean_ratings(pool: Sequence[Rated]) -> dict[str, dict[str, float]]:
    """Ratings by response and objective, the mean where a response was rated more than once."""
    rows: dict[str, list[Rated]] = {}
    for rated in pool:
        rows.setdefault(rated.response, []).append(rated)
    return {
        response: {name: fmean(rated.ratings[name] for rated in same) for name in same[0].ratings}
        for response, same in rows.items()
    }


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]
