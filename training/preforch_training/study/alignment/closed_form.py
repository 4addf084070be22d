"""The alignment gap in closed form (METHOD 9), on finite pools of responses with gold labels.

In:  pools (calibrated rewards r(x, y) of one prompt's Y responses; which of them are gold), weights of
     predictors, w*(x), fitted by `gold_weights`.
Out: the mean gap of each predictor with intervals, the identity and the bounds checked.

With pi_w(y) ~ pi_ref(y) exp(w.r/beta), normalised, and A(w) = beta log E_ref exp(w.r/beta), of gradient
E_pi_w[r]:

    Gap(w) = A(w*) - A(w) - grad A(w).(w* - w) = beta KL(pi_w || pi_w*)

KL takes the policy in use first, as in METHOD (the other order is A(w) - A(w*) - grad A(w*).(w - w*), the gap
with the roles exchanged). It is what pi_w loses against pi_w* in E[w*.r] - beta KL(pi || pi_ref). Along the
path w + t(w* - w), with u = (w* - w).r, Gap = integral of (1 - t) Var_t(u) / beta; both bounds follow from
it.

Departures from METHOD:
1. The least variance along the path is bounded from its values on a grid: |d log Var_t / dt| <= range(u) /
   beta, so that the least value times exp(-range(u) step / (2 beta)) is below the true minimum: a bound
   indeed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from preforch_models.objectives import Record
from scipy.special import log_softmax, logsumexp

from preforch_training.statistics.bootstrap import Bootstrap, Interval, mean_interval

_PATH = np.linspace(0, 1, 257)


@dataclass(frozen=True, eq=False)
class Pool:
    """The responses of one prompt: calibrated rewards, which are gold,
    and pi_ref (positive; None: uniform)."""

    prompt_id: str
    rewards_YK: np.ndarray
    good_Y: np.ndarray
    reference_Y: np.ndarray | None = None

    def __post_init__(self) -> None:
        try:
            _log_reference(self.rewards_YK, self.reference_Y)
        except ValueError as error:
            raise ValueError(f"pool of prompt {self.prompt_id!r}: {error}") from error
        if self.good_Y.dtype != np.bool_ or self.good_Y.shape != self.rewards_YK.shape[:1]:
            raise ValueError(
                f"pool of prompt {self.prompt_id!r}: good_Y must hold one boolean for each of the "
                f"{len(self.rewards_YK)} responses, got {self.good_Y.dtype} of shape {self.good_Y.shape}"
            )


class Bounds(Record):
    """Lower and upper bound of the gap, in units of reward."""

    lower: float
    upper: float


class PoolCheck(Record):
    """By how much a pool violates the identity and the bounds, in units of reward; 0 is perfect."""

    identity: float
    lower: float
    upper: float

    @property
    def worst(self) -> float:
        """The largest of the three."""
        return max(self.identity, self.lower, self.upper)


class GapRow(Record):
    """Mean gap of one predictor, and its mean difference from the best constant (below 0: closer to w*)."""

    name: str
    gap: Interval
    minus_constant: Interval | None


class GapPoint(Record):
    """Mean gap after training on `prompts` prompts."""

    prompts: int
    gap: Interval


def log_policy(
    r_YK: np.ndarray, w_K: np.ndarray, *, beta: float, reference_Y: np.ndarray | None = None
) -> np.ndarray:
    """log pi_w, (Y,). Raises ValueError for wrong shapes, numbers that are not finite, beta <= 0."""
    return np.asarray(log_softmax(_scores(r_YK, w_K, beta, reference_Y)))


def policy(
    r_YK: np.ndarray, w_K: np.ndarray, *, beta: float, reference_Y: np.ndarray | None = None
) -> np.ndarray:
    """pi_w(y), (Y,). Raises as `log_policy`."""
    return np.asarray(np.exp(log_policy(r_YK, w_K, beta=beta, reference_Y=reference_Y)))


def potential(
    r_YK: np.ndarray, w_K: np.ndarray, *, beta: float, reference_Y: np.ndarray | None = None
) -> float:
    """A(w). Raises as `log_policy`."""
    return beta * float(logsumexp(_scores(r_YK, w_K, beta, reference_Y)))


def gap(
    r_YK: np.ndarray,
    w_K: np.ndarray,
    gold_K: np.ndarray,
    *,
    beta: float,
    reference_Y: np.ndarray | None = None,
) -> float:
    """Gap(w) = beta KL(pi_w || pi_w*), at least 0. Raises as `log_policy`."""
    log_w_Y = log_policy(r_YK, w_K, beta=beta, reference_Y=reference_Y)
    log_gold_Y = log_policy(r_YK, gold_K, beta=beta, reference_Y=reference_Y)
    return max(0.0, beta * float(np.exp(log_w_Y) @ (log_w_Y - log_gold_Y)))


def gap_bounds(
    r_YK: np.ndarray,
    w_K: np.ndarray,
    gold_K: np.ndarray,
    *,
    beta: float,
    reference_Y: np.ndarray | None = None,
) -> Bounds:
    """(least variance of u along the path) / (2 beta) and range(u)^2 / (8 beta). Raises as `log_policy`."""
    log_w_Y = log_policy(r_YK, w_K, beta=beta, reference_Y=reference_Y)
    _scores(r_YK, gold_K, beta, reference_Y)
    u_Y = r_YK @ (gold_K - w_K)
    probabilities_TY = np.exp(log_softmax(log_w_Y + _PATH[:, None] * u_Y / beta, axis=1))
    centred_TY = u_Y - (probabilities_TY @ u_Y)[:, None]
    least = float((probabilities_TY * centred_TY**2).sum(axis=1).min())
    width = float(np.ptp(u_Y))
    certain = least * float(np.exp(-width * (_PATH[1] - _PATH[0]) / (2 * beta)))
    return Bounds(lower=certain / (2 * beta), upper=width**2 / (8 * beta))


def check_pool(
    r_YK: np.ndarray,
    w_K: np.ndarray,
    gold_K: np.ndarray,
    *,
    beta: float,
    reference_Y: np.ndarray | None = None,
) -> PoolCheck:
    """Compare the KL with the difference of potentials, and both bounds with it. Raises as `log_policy`."""
    found = gap(r_YK, w_K, gold_K, beta=beta, reference_Y=reference_Y)
    bounds = gap_bounds(r_YK, w_K, gold_K, beta=beta, reference_Y=reference_Y)
    slope_K = policy(r_YK, w_K, beta=beta, reference_Y=reference_Y) @ r_YK
    rise = potential(r_YK, gold_K, beta=beta, reference_Y=reference_Y) - potential(
        r_YK, w_K, beta=beta, reference_Y=reference_Y
    )
    return PoolCheck(
        identity=abs(found - (rise - float(slope_K @ (gold_K - w_K)))),
        lower=max(0.0, bounds.lower - found),
        upper=max(0.0, found - bounds.upper),
    )


def gaps(pools: Sequence[Pool], weights_PK: np.ndarray, gold_PK: np.ndarray, *, beta: float) -> np.ndarray:
    """Gap of every pool, (P,). Raises ValueError unless both arrays hold one point on the simplex per
    pool."""
    for name, values_PK in (("weights", weights_PK), ("w*", gold_PK)):
        _check_simplex(values_PK, pools, name)
    rows = zip(pools, weights_PK, gold_PK, strict=True)
    return np.array(
        [gap(p.rewards_YK, w_K, s_K, beta=beta, reference_Y=p.reference_Y) for p, w_K, s_K in rows]
    )


def gap_table(
    pools: Sequence[Pool],
    predictors: Mapping[str, np.ndarray],
    gold_PK: np.ndarray,
    *,
    beta: float,
    bootstrap: Bootstrap,
    constant: str = "best constant",
) -> tuple[GapRow, ...]:
    """Mean gap of each predictor's weights (P, K), and paired differences from the one named `constant`."""
    if constant not in predictors:
        raise ValueError(f"no predictor named {constant!r} to compare with, got {sorted(predictors)}")
    found = {name: gaps(pools, weights_PK, gold_PK, beta=beta) for name, weights_PK in predictors.items()}
    prompts_P = np.array([pool.prompt_id for pool in pools])

    def mean(values_P: np.ndarray) -> Interval:
        return mean_interval(values_P, prompts_P, bootstrap=bootstrap)

    return tuple(
        GapRow(
            name=name,
            gap=mean(gaps_P),
            minus_constant=None if name == constant else mean(gaps_P - found[constant]),
        )
        for name, gaps_P in found.items()
    )


def learning_curve(
    pools: Sequence[Pool],
    outcomes: Mapping[int, Sequence[np.ndarray]],
    gold_PK: np.ndarray,
    *,
    beta: float,
    bootstrap: Bootstrap,
) -> tuple[GapPoint, ...]:
    """Gap by number of training prompts. `outcomes[n]`: weights (P, K) of each repetition (seed, subset).

    Repetitions are averaged per prompt, so the interval speaks of prompts and not of them.
    """
    prompts_P = np.array([pool.prompt_id for pool in pools])
    points = []
    for count, repetitions in sorted(outcomes.items()):
        if not repetitions:
            raise ValueError(f"learning curve: no weights for {count} training prompts")
        gaps_P = np.mean([gaps(pools, weights_PK, gold_PK, beta=beta) for weights_PK in repetitions], axis=0)
        points.append(GapPoint(prompts=count, gap=mean_interval(gaps_P, prompts_P, bootstrap=bootstrap)))
    return tuple(points)


def _log_reference(r_YK: np.ndarray, reference_Y: np.ndarray | None) -> np.ndarray:
    if r_YK.ndim != 2 or 0 in r_YK.shape:
        raise ValueError(
            f"rewards must have the shape (responses, objectives), neither zero, got {r_YK.shape}"
        )
    if not np.isfinite(r_YK).all():
        raise ValueError(f"rewards must be finite, got {r_YK[~np.isfinite(r_YK)][0]}")
    if reference_Y is None:
        return np.full(len(r_YK), -np.log(len(r_YK)))
    if reference_Y.shape != r_YK.shape[:1] or not np.isfinite(reference_Y).all() or (reference_Y <= 0).any():
        raise ValueError(f"pi_ref must be {len(r_YK)} positive finite numbers, got {reference_Y}")
    return np.asarray(np.log(reference_Y / reference_Y.sum()))


def _scores(r_YK: np.ndarray, w_K: np.ndarray, beta: float, reference_Y: np.ndarray | None) -> np.ndarray:
    log_reference_Y = _log_reference(r_YK, reference_Y)
    if w_K.shape != r_YK.shape[1:] or not np.isfinite(w_K).all():
        raise ValueError(f"weights must be {r_YK.shape[1]} finite numbers, got {w_K}")
    if not 0 < beta < np.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}")
    return np.asarray(log_reference_Y + r_YK @ w_K / beta)


def _check_simplex(values_PK: np.ndarray, pools: Sequence[Pool], name: str) -> None:
    shape = (len(pools), pools[0].rewards_YK.shape[1]) if pools else (0,)
    if not pools or values_PK.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} for {len(pools)} pools, got {values_PK.shape}")
    wrong_P = ~(np.isfinite(values_PK).all(axis=1) & (values_PK >= 0).all(axis=1))
    wrong_P |= ~(abs(values_PK.sum(axis=1) - 1) < 1e-6)
    if wrong_P.any():
        place = int(wrong_P.argmax())
        raise ValueError(
            f"{name} of prompt {pools[place].prompt_id!r}: not on the simplex: {values_PK[place]}"
        )
