"""Scores in the place of weights in a context, ` <R1> 1.2 <R2> -0.3`: what RiC's policies read (2402.10207).

In:  rounded weights by objective name.
Out: the desired rewards of a response, written with one decimal; the policy has learned them as what
     responses obtained.

With low_k and high_k the least and largest calibrated rewards of training, the share of the way from one to
the other is, by `mapping`,

    l2:   w_k / ||w||_2       the one of RiC's evaluation
    linf: min(K w_k, 1)       the best objective at the top
"""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from preforch_models.context import ContextFormat

ScoreMapping = Literal["l2", "linf"]
_SHARES: dict[ScoreMapping, str] = {
    "l2": "weights[name] / preference.squares ** 0.5",
    "linf": "[weights[name] * objectives | length, 1.0] | min",
}
"""The same in a chat template."""


class ScoreFormat(ContextFormat):
    """`low`, `high`: in the order of the objectives, with one decimal."""

    mapping: ScoreMapping
    low: tuple[float, ...]
    high: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> "ScoreFormat":
        sizes = {len(self.objectives), len(self.low), len(self.high)}
        if len(sizes) > 1:
            raise ValueError(f"low {self.low} and high {self.high} need a number for each objective")
        for name, low, high in zip(self.objectives, self.low, self.high, strict=True):
            if not low < high:
                raise ValueError(f"scores of {name!r} go from low {low} to high {high}: low must be less")
        return self

    @property
    def letter(self) -> str:
        """Of its tokens."""
        return "R"

    @property
    def values(self) -> tuple[tuple[str, ...], ...]:
        """By objective, what `levels` has a token for."""
        spans = zip(self.low, self.high, strict=True)
        return tuple(
            tuple(f"{tenth / 10:.1f}" for tenth in range(_tenths(low), _tenths(high) + 1))
            for low, high in spans
        )

    def written(self, weights: Mapping[str, float]) -> tuple[str, ...]:
        """The scores that weights ask for, as they are written."""
        given = [weights[name] for name in self.objectives]
        norm = math.sqrt(sum(weight * weight for weight in given))
        shares = [
            weight / norm if self.mapping == "l2" else min(weight * len(given), 1.0) for weight in given
        ]
        return self.write_scores(
            [low + share * (high - low) for share, low, high in zip(shares, self.low, self.high, strict=True)]
        )

    @property
    def longest(self) -> tuple[tuple[str, ...], ...]:
        """The ends of the range, which may have a sign or a digit more."""
        return self.write_scores(list(self.low)), self.write_scores(list(self.high))

    def write_scores(self, scores: "list[float]") -> tuple[str, ...]:
        """Scores as they are written, those beyond the range at its end."""
        return tuple(
            f"{_tenths(min(max(score, low), high)) / 10:.1f}"
            for score, low, high in zip(scores, self.low, self.high, strict=True)
        )

    @property
    def expression(self) -> str:
        """What a chat template writes for the objective `name`, number `loop.index0`."""
        low, span = list(self.low), [high - low for low, high in zip(self.low, self.high, strict=True)]
        score = f"{low}[loop.index0] + ({_SHARES[self.mapping]}) * {span}[loop.index0]"
        # What rounds to minus zero is zero.
        return f'"%.1f" % (((({score}) * 10) | round) / 10 + 0.0)'


def _tenths(score: float) -> int:
    return round(score * 10)
