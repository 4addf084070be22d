"""Calibration: what puts the rewards of different reward models on one scale before they are compared.

In:  raw rewards by objective. Out: calibrated reward = (reward - offset) * scale, by objective.

Source: METHOD section 2.
* `zscore`: mean 0 and deviation 1 over the training responses, chosen and rejected (RiC, 2402.10207).
* `log_odds`: training mean 0; the scale s makes sigma(s * margin) the probability that the response with the higher
  reward wins, fitted by logistic regression without intercept on held-out pairs of the objective. [ours]
* `none`: as they are, for comparison.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from preforch_models.objectives import Record

Method = Literal["none", "zscore", "log_odds"]


class Constants(Record):
    """Affine map of one objective."""

    offset: float = 0.0
    scale: float = 1.0


class Calibration(Record):
    """Calibration constants of every objective, with the method that made them."""

    method: Method
    constants: dict[str, Constants]

    def apply(self, rewards: Mapping[str, float]) -> dict[str, float]:
        """Calibrated rewards of one response."""
        return {name: (rewards[name] - c.offset) * c.scale for name, c in self.constants.items()}

    def apply_matrix(self, rewards_NK: np.ndarray) -> np.ndarray:
        """Calibrated rewards, (N, K) -> (N, K), columns in the order of the constants."""
        offset_K = np.array([c.offset for c in self.constants.values()])
        scale_K = np.array([c.scale for c in self.constants.values()])
        return np.asarray((rewards_NK - offset_K) * scale_K)


def fit_calibration(
    rewards_NK: np.ndarray,
    names: Sequence[str],
    *,
    method: Method,
    margins: Mapping[str, np.ndarray] | None = None,
) -> Calibration:
    """Fit on training responses, (N, K); `log_odds` also on `margins`, (M,) raw r(y+) - r(y-) of held-out pairs each.

    Raises ValueError on rewards that are not finite or do not vary, and on margins that no scale can be fitted to.
    """
    held = dict(margins or {})
    if method == "log_odds" and set(held) != set(names):
        raise ValueError(f"log_odds needs held-out margins of exactly {list(names)}, got {sorted(held)}")
    constants: dict[str, Constants] = {}
    for k, name in enumerate(names):
        column_N = rewards_NK[:, k]
        if not np.isfinite(column_N).all():
            row = int(np.flatnonzero(~np.isfinite(column_N))[0])
            raise ValueError(f"reward of {name!r} in row {row} is {column_N[row]}; rewards must be finite")
        deviation = float(column_N.std())
        if method == "none":
            constants[name] = Constants()
        elif deviation <= 1e-12 or math.isnan(deviation):
            raise ValueError(
                f"reward of {name!r} is the same for all {len(column_N)} responses; it says nothing"
            )
        else:
            scale = log_odds_scale(held[name], name) if method == "log_odds" else 1 / deviation
            constants[name] = Constants(offset=float(column_N.mean()), scale=scale)
    return Calibration(method=method, constants=constants)


def log_odds_scale(margin_M: np.ndarray, name: str) -> float:
    """The s > 0 with the most likely wins, maximising mean log sigma(s * margin). Raises ValueError naming `name`."""
    if margin_M.size == 0 or not np.isfinite(margin_M).all():
        what = "has no held-out pairs" if margin_M.size == 0 else "has a held-out margin that is not finite"
        raise ValueError(f"objective {name!r} {what}; log_odds fits its scale on them")
    # The slope of the likelihood at s = 0 is half the mean margin.
    if margin_M.mean() <= 0:
        raise ValueError(
            f"reward of {name!r} is no better than chance on its {margin_M.size} held-out pairs: "
            f"its log-odds scale would be <= 0 (mean margin {margin_M.mean():.3g})"
        )
    if margin_M.min() >= 0:
        raise ValueError(
            f"reward of {name!r} gets all of its {margin_M.size} held-out pairs right, so its log-odds scale has no "
            'finite value; use calibration "zscore" or more held-out pairs'
        )

    def slope(scale: float) -> float:
        # Of the likelihood; it falls in the scale. 1 - tanh(z / 2) is 2 sigma(-z) without overflow.
        return float(np.mean(margin_M * (1 - np.tanh(scale * margin_M / 2))))

    high = 1 / float(np.abs(margin_M).max())
    while slope(high) > 0:
        high *= 2
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2
