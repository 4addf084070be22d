"""Calibration: what puts the rewards of different reward models on one scale before they are compared.

In:  raw rewards by objective. Out: calibrated reward = (reward - offset) * scale, by objective. Training fits
     the constants (`preforch_training.scores.calibration`).

Source: METHOD 2.
* `zscore`: mean 0 and deviation 1 over the training responses, chosen and rejected (RiC, 2402.10207).
* `log_odds`: training mean 0; the scale s makes sigma(s * margin) the probability that the response with the
  higher reward wins, fitted by logistic regression without intercept on held-out pairs of the objective.
  [ours]
* `none`: as they are, for comparison.
"""

from collections.abc import Mapping
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
