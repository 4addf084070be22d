"""The maths that report and study share (METHOD 1, 2 and 9). Arrays in, arrays or intervals out; objectives
in the last axis."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import rankdata

from preforch_training.statistics.bootstrap import Bootstrap, Interval, Statistic, interval_of

_TINY = 1e-12
SCALES = (1e-3, 1e3)
"""Of a likelihood: beyond it, s says no more than that nothing is known, or that no pair is wrong."""


def pair_hits(margin_N: np.ndarray) -> np.ndarray:
    """Pair accuracy by pair, (N,): 1 where the chosen response has the higher reward, 0 the lower,
    a half at ties."""
    return np.asarray((np.sign(margin_N) + 1) / 2)


def preference_hits(weights_NK: np.ndarray, margin_NK: np.ndarray) -> np.ndarray:
    """Preference accuracy by pair (METHOD 4):
    1 where w.(r+ - r-) is positive, 0 where negative, a half at ties."""
    return pair_hits((weights_NK * margin_NK).sum(-1))


def logistic_scale(margin_N: np.ndarray) -> float:
    """The s >= 0 of the largest mean log sigma(s * margin), the calibration of wins (METHOD 2).

    0 where the mean margin is not positive, infinite where no margin is negative and one is positive. The
    likelihood is concave in s, so that within limits the best s is this one, clipped.
    """
    if margin_N.mean() <= 0:
        return 0.0
    if margin_N.min() >= 0:
        return np.inf

    def slope(scale: float) -> float:
        # Of the likelihood; it falls in the scale. sigma(-z) without overflow.
        return float(np.mean(margin_N * expit(-scale * margin_N)))

    high = 1 / float(np.abs(margin_N).max())
    while slope(high) > 0:
        high *= 2
    return float(brentq(slope, 0.0, high, xtol=1e-14 * high, rtol=1e-14))


def best_likelihood(gain_N: np.ndarray) -> tuple[float, float]:
    """max over s of mean log sigma(s g), and its s within `SCALES` (METHOD 2). At s = 0 it is log(1/2)."""
    scale = float(np.clip(logistic_scale(gain_N), *SCALES))
    return -float(np.logaddexp(0, -scale * gain_N).mean()), scale


def correlations(values_NK: np.ndarray) -> np.ndarray:
    """Correlation of the columns, (K, K); 0 for a column that never varies, with itself too."""
    centred_NK = values_NK - values_NK.mean(axis=0)
    scaled_NK = centred_NK / np.maximum(np.sqrt((centred_NK**2).sum(axis=0)), _TINY)
    return np.asarray(scaled_NK.T @ scaled_NK)


def margin_correlations(margin_NK: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Correlations of the K margins by pairs of objectives; near 1, two cannot be traded off (METHOD 1)."""
    rows = correlations(margin_NK).tolist()
    return {name: dict(zip(names, row, strict=True)) for name, row in zip(names, rows, strict=True)}


def simplex_grid(count: int, step: float) -> np.ndarray:
    """All weights on multiples of `step`, (G, count), for sweeps;
    21 for three objectives and a step of 0.2."""
    steps = round(1 / step)
    if abs(steps * step - 1) > 1e-9:
        raise ValueError(f"the step of the weights grid must divide 1, got {step}")
    rows = [[i] for i in range(steps + 1)]
    for _ in range(count - 2):
        rows = [[*row, i] for row in rows for i in range(steps + 1 - sum(row))]
    return np.array([[*row, steps - sum(row)] for row in rows]) / steps


def spearman(asked_GK: np.ndarray, obtained_BGK: np.ndarray) -> np.ndarray:
    """Rank correlation over the grid between asked weight k and obtained reward k, (B, K);
    0 where nothing varies."""
    asked_GK = rankdata(asked_GK, axis=0)
    obtained_BGK = rankdata(obtained_BGK, axis=1)
    asked_GK = asked_GK - asked_GK.mean(axis=0)
    obtained_BGK = obtained_BGK - obtained_BGK.mean(axis=1, keepdims=True)
    scale_BK = np.sqrt((asked_GK**2).sum(0) * (obtained_BGK**2).sum(1))
    return np.asarray((asked_GK * obtained_BGK).sum(1) / np.maximum(scale_BK, _TINY))


def kendall(asked_GK: np.ndarray, obtained_BGK: np.ndarray) -> np.ndarray:
    """Kendall's tau-b over the grid between asked weight k and obtained reward k, (B, K); 0 where nothing
    varies."""
    order_GGK = np.sign(asked_GK[:, None] - asked_GK[None, :])
    found_BGGK = np.sign(obtained_BGK[:, :, None] - obtained_BGK[:, None, :])
    agree_BK = np.einsum("ghk,bghk->bk", order_GGK, found_BGGK)
    scale_BK = np.sqrt((order_GGK**2).sum((0, 1)) * (found_BGGK**2).sum((1, 2)))
    return np.asarray(agree_BK / np.maximum(scale_BK, _TINY))


def control(
    asked_GK: np.ndarray,
    rewards_PGK: np.ndarray,
    *,
    bootstrap: Bootstrap,
    correlation: Callable[[np.ndarray, np.ndarray], np.ndarray] = spearman,
) -> list[Interval]:
    """Rank correlation of each objective between the asked weight and the mean reward over P prompts (METHOD
    9)."""
    prompts, points, count = rewards_PGK.shape
    flat_PX = rewards_PGK.reshape(prompts, points * count)

    def of_objective(k: int) -> Statistic:
        return lambda counts_BP: correlation(
            asked_GK, (counts_BP @ flat_PX / prompts).reshape(len(counts_BP), points, count)
        )[:, k]

    return [interval_of(of_objective(k), groups=prompts, bootstrap=bootstrap) for k in range(count)]


def strictly_dominated(points_GK: np.ndarray) -> np.ndarray:
    """Whether another point is higher in every objective, (G,): strict dominance (METHOD 9)."""
    higher_GG = np.all(points_GK[None, :, :] > points_GK[:, None, :], axis=-1)
    return np.asarray(higher_GG.any(axis=1))


def shuffle_within(weights_PK: np.ndarray, label_P: np.ndarray, *, seed: int) -> np.ndarray:
    """Give every prompt the weights of another prompt with its label."""
    rng = np.random.default_rng(seed)
    shuffled_PK = weights_PK.copy()
    for label in np.unique(label_P):
        rows = rng.permutation(np.flatnonzero(label_P == label))
        # A shift along a random order leaves no prompt with its own weights.
        shuffled_PK[rows] = weights_PK[np.roll(rows, 1)]
    return shuffled_PK


def weighted_auroc(score_N: np.ndarray, positive_N: np.ndarray, counts_BN: np.ndarray) -> np.ndarray:
    """AUROC of scores that count `counts_BN` times, (B,); a half where one side is empty. Ties count half."""
    order = np.argsort(score_N, kind="stable")
    # Where a new score begins: equal scores stand on both sides of the curve by half.
    starts = np.flatnonzero(np.diff(score_N[order], prepend=-np.inf))
    sides = (positive_N, ~positive_N)
    plus_BR, minus_BR = (np.add.reduceat((counts_BN * side_N)[:, order], starts, axis=1) for side_N in sides)
    wins_B = (plus_BR * (np.cumsum(minus_BR, axis=1) - minus_BR / 2)).sum(axis=1)
    total_B = plus_BR.sum(axis=1) * minus_BR.sum(axis=1)
    return np.where(total_B > 0, wins_B / np.maximum(total_B, 1), 0.5)
