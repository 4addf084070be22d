"""Calibration: fitted on the score table, and applied to the rewards of any response (METHOD 2).

In:  raw rewards of training responses; for `log_odds` margins of held-out pairs.
Out: `Calibration` (its format and its methods: `preforch_models.calibration`).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from preforch_models.calibration import Calibration, Constants, Method

from preforch_training.records import Prompt
from preforch_training.reward.scoring import RunRewards
from preforch_training.run import Run
from preforch_training.scores.table import read_calibration
from preforch_training.statistics.metrics import logistic_scale


def fit_calibration(
    rewards_NK: np.ndarray,
    names: Sequence[str],
    *,
    method: Method,
    margins: Mapping[str, np.ndarray] | None = None,
) -> Calibration:
    """Fit on training responses, (N, K); `log_odds` also on `margins`, (M,) raw r(y+) - r(y-) of held-out
    pairs each.

    Raises ValueError on rewards that are not finite or do not vary, and on margins that no scale can be
    fitted to.
    """
    held_out = dict(margins or {})
    if method == "log_odds" and set(held_out) != set(names):
        raise ValueError(f"log_odds needs held-out margins of exactly {list(names)}, got {sorted(held_out)}")
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
            scale = log_odds_scale(held_out[name], name) if method == "log_odds" else 1 / deviation
            constants[name] = Constants(offset=float(column_N.mean()), scale=scale)
    return Calibration(method=method, constants=constants)


def log_odds_scale(margin_M: np.ndarray, name: str) -> float:
    """The s > 0 with the most likely wins, maximising mean log sigma(s * margin). Raises ValueError naming
    `name`."""
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
            f"reward of {name!r} gets all of its {margin_M.size} held-out pairs right, so its log-odds scale "
            'has no finite value; use calibration "zscore" or more held-out pairs'
        )
    return logistic_scale(margin_M)


class CalibratedRewards:
    """A run's rewards on one scale; its stages `reward` and `scores` must be done.

    As in the score table, a training prompt is scored by the models that never saw its fold: its samples are
    compared with its known responses, whose scores are such, and the constants were fitted to such scores. A
    full model is fitted to more pairs, and may know this prompt's by heart (training/README.md has figures).
    """

    def __init__(self, run: Run) -> None:
        self._rewards, self._calibration = RunRewards(run), read_calibration(run.scores)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Calibrated rewards, (N, K)."""
        folds = self._rewards.own_folds(prompts)
        return self._calibration.apply_matrix(self._rewards.raw(prompts, responses, folds=folds))

    def by_full_models(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray | None:
        """Calibrated rewards by the full models, (N, K); None where no reward has others."""
        if not self._rewards.folds:
            return None
        return self._calibration.apply_matrix(self._rewards.raw(prompts, responses))
