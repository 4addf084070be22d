"""Calibration: what puts the rewards of different reward models on one scale before they are compared.

In:  raw rewards by objective. Out: calibrated reward = (reward - offset) * scale, by objective.

Source: METHOD section 2; z-score over the training responses, chosen and rejected (RiC, 2402.10207).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from preforch_models.objectives import Record

Method = Literal["none", "zscore"]


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


def fit_calibration(rewards_NK: np.ndarray, names: Sequence[str], *, method: Method) -> Calibration:
    """Fit on training responses, (N, K). Raises ValueError on rewards that are not finite or do not vary."""
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
            raise ValueError(f"reward of {name!r} is the same for all {len(column_N)} responses; it says nothing")
        else:
            constants[name] = Constants(offset=float(column_N.mean()), scale=1 / deviation)
    return Calibration(method=method, constants=constants)
