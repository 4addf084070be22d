"""w*(x), the weights under which a prompt's gold responses are likeliest (METHOD 9), and whether they vary by
prompt.

In:  pools (`closed_form.Pool`): calibrated rewards of one prompt's responses, which of them are gold.
Out: w*(x) by pool likelihood, the best constant, the best beta; the spread of w*, with the part that is
     noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from preforch_models.objectives import Record
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from preforch_training.statistics.bootstrap import Bootstrap, Interval, Statistic, interval_of
from preforch_training.study.alignment.closed_form import Pool, log_policy

LEAST_SD = 0.05
"""A weight that moves less than this between prompts moves by less than one level of the policy's context."""
_SLOPE = 1e-5
"""Largest slope of the loss at which a search counts as done that rounding stopped."""
_DRAWN = 4
"""Draws that the mean w* of a half under one shared preference is taken from. Their noise lowers the
correlation of halves, by at most a fifth, and cannot raise it."""
_CLEAREST = 20.0
"""Log-odds per standard deviation of a margin that are as good as certainty."""


@dataclass(frozen=True, eq=False)
class Prior:
    """Dirichlet prior of w*: worth `strength` gold answers at `centre_K`, which is what a pool without news
    returns.

    One gold answer is little beside a pool with five and decides where the rewards do not tell gold from the
    rest.
    """

    centre_K: np.ndarray
    strength: float = 1.0

    def __post_init__(self) -> None:
        centre_K = self.centre_K
        if centre_K.ndim != 1 or not (centre_K > 0).all() or not abs(centre_K.sum() - 1) < 1e-6:
            raise ValueError(f"prior: the centre must be positive and sum to 1, got {centre_K}")
        if not 0 < self.strength < np.inf:
            raise ValueError(f"prior: strength must be positive and finite, got {self.strength}")


@dataclass(frozen=True, eq=False)
class GoldWeights:
    """w* of the `pools` whose gold labels say something, (P, K),
    and the prompts left out because they do not."""

    pools: tuple[Pool, ...]
    weights_PK: np.ndarray
    all_gold: tuple[str, ...]
    none_gold: tuple[str, ...]


class Spread(Record):
    """How much w* varies over prompts. `halves`: correlation of the w* of two random halves of each pool,
    less what one preference shared by all prompts would make of them."""

    sd: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    halves: Interval
    share: float
    """Of the variance of w*, what sampling noise does not explain:
    halves extended to the whole pool, 2r / (1 + r)."""
    prompts: int
    too_small: int
    """Pools not split: fewer than two gold or two other answers."""


def gold_weights_of(
    r_YK: np.ndarray, good_Y: np.ndarray, *, beta: float, prior: Prior, reference_Y: np.ndarray | None = None
) -> np.ndarray:
    """w*, (K,): the largest mean log pi_w(y) over gold y + strength / (number of gold) sum_k centre_k log
    w_k.

    Raises ValueError where every or no answer is gold, since the labels then compare nothing.
    """
    pool = Pool("gold_weights_of", r_YK, good_Y, reference_Y)
    if good_Y.all() or not good_Y.any():
        raise ValueError(f"w* needs gold and other answers, got {int(good_Y.sum())} gold of {len(good_Y)}")
    return _most_likely([pool], beta=beta, prior=Prior(prior.centre_K, prior.strength / int(good_Y.sum())))


def fit_gold_weights(pools: Sequence[Pool], *, beta: float, prior: Prior) -> GoldWeights:
    """w* of every pool that has gold and other answers; the rest is named.
    Raises ValueError where none has."""
    kept = _telling(pools)
    gold = [
        gold_weights_of(p.rewards_YK, p.good_Y, beta=beta, prior=prior, reference_Y=p.reference_Y)
        for p in kept
    ]
    return GoldWeights(
        pools=kept,
        weights_PK=np.array(gold),
        all_gold=tuple(pool.prompt_id for pool in pools if pool.good_Y.all()),
        none_gold=tuple(pool.prompt_id for pool in pools if not pool.good_Y.any()),
    )


def gold_constant(pools: Sequence[Pool], *, beta: float) -> np.ndarray:
    """The one w, (K,), of the largest mean over prompts of mean log pi_w(gold). Pools without news are left
    out.

    A uniform prior worth one gold answer in all keeps it unique and positive, as the centre of a `Prior` must
    be.
    """
    kept = _telling(pools)
    objectives = kept[0].rewards_YK.shape[1]
    return _most_likely(kept, beta=beta, prior=Prior(np.full(objectives, 1 / objectives), 1 / len(kept)))


def choose_beta(pools: Sequence[Pool], *, grid: Sequence[float]) -> tuple[float, dict[float, float]]:
    """The beta of the largest likelihood of training pools under their best constant, and that likelihood by
    beta.

    The constant, and not each pool's own w*, because the latter fits noise and would favour a small beta.
    """
    if not grid:
        raise ValueError("choose_beta: the grid is empty")
    kept = _telling(pools)
    found = {beta: -_loss(kept, gold_constant(kept, beta=beta), beta)[0] for beta in grid}
    return max(found, key=lambda beta: found[beta]), found


def spread(
    fitted: GoldWeights, *, beta: float, prior: Prior, bootstrap: Bootstrap, splits: int = 3
) -> Spread:
    """Spread of w*, and the part of it that two random halves of each pool agree on.

    The other answers are halved like the gold ones: were they shared, their noise would look like agreement.
    Before halves are compared, each loses the mean w* that its rewards and its number of gold answers give
    when gold is drawn by one preference for all prompts: the prior and the simplex pull pools that tell
    little more than others, and both halves of a pool alike, which looks like agreement wherever the shared
    w* is not in the middle. Raises ValueError with fewer than two pools that can be halved.
    """
    usable = [p for p in fitted.pools if min(p.good_Y.sum(), (~p.good_Y).sum()) >= 2]
    if len(usable) < 2:
        raise ValueError(
            f"spread: {len(usable)} of {len(fitted.pools)} pools have two gold and two other answers"
        )
    rng = np.random.default_rng(bootstrap.seed)
    shared_K = _shared_preference(usable)

    def surprise(half: Pool) -> np.ndarray:
        alike = [half, *(_drawn_alike(half, shared_K, rng) for _ in range(_DRAWN))]
        gold_AK = fit_gold_weights(alike, beta=beta, prior=prior).weights_PK
        return np.asarray(gold_AK[0] - gold_AK[1:].mean(axis=0))

    surprise_SP2K = np.array(
        [[[surprise(half) for half in _halve(pool, rng)] for pool in usable] for _ in range(splits)]
    )
    halves = interval_of(_agreement(surprise_SP2K), groups=len(usable), bootstrap=bootstrap)
    return Spread(
        sd=tuple(fitted.weights_PK.std(axis=0).tolist()),
        low=tuple(fitted.weights_PK.min(axis=0).tolist()),
        high=tuple(fitted.weights_PK.max(axis=0).tolist()),
        halves=halves,
        share=2 * max(0.0, halves.value) / (1 + max(0.0, halves.value)),
        prompts=len(fitted.pools),
        too_small=len(fitted.pools) - len(usable),
    )


def varies(found: Spread) -> bool:
    """Whether w* varies enough to go on: both, or the report says that it barely varies, and stops.

    1. The correlation of halves is above 0 with its 95% interval: more than sampling noise.
    2. For some objective, sd sqrt(share), the spread without that noise, is at least `LEAST_SD`.
    """
    return found.halves.low > 0 and max(found.sd) * found.share**0.5 >= LEAST_SD


def _telling(pools: Sequence[Pool]) -> tuple[Pool, ...]:
    kept = tuple(pool for pool in pools if pool.good_Y.any() and not pool.good_Y.all())
    if not kept:
        raise ValueError(f"none of {len(pools)} pools has both gold and other answers")
    if len({pool.rewards_YK.shape[1] for pool in kept}) > 1:
        raise ValueError(f"pools differ in objectives: {sorted({pool.rewards_YK.shape[1] for pool in kept})}")
    return kept


def _loss(pools: Sequence[Pool], w_K: np.ndarray, beta: float) -> tuple[float, np.ndarray]:
    """Mean over pools of mean -log pi_w(gold), convex in w, with its gradient (K,)."""
    loss, slope_K = 0.0, np.zeros(len(w_K))
    for pool in pools:
        log_w_Y = log_policy(pool.rewards_YK, w_K, beta=beta, reference_Y=pool.reference_Y)
        gold_Y = pool.good_Y / pool.good_Y.sum()
        loss -= float(gold_Y @ log_w_Y)
        slope_K += (np.exp(log_w_Y) - gold_Y) @ pool.rewards_YK / beta
    return loss / len(pools), slope_K / len(pools)


def _most_likely(pools: Sequence[Pool], *, beta: float, prior: Prior) -> np.ndarray:
    """The w of the least loss - strength sum_k centre_k log w_k on the simplex.

    Sought over z with w = softmax(z), where nothing is bounded. On the simplex itself SLSQP ends up to 0.8
    away where beta or the prior is small, and trust-constr takes twenty times as long. Ends at the rounding
    of the loss.
    """
    pull_K = prior.strength * prior.centre_K

    def value_and_slope(z_K: np.ndarray) -> tuple[float, np.ndarray]:
        log_w_K = log_softmax(z_K)
        w_K = np.exp(log_w_K)
        loss, slope_K = _loss(pools, w_K, beta)
        along_K = w_K * slope_K - pull_K
        return loss - float(pull_K @ log_w_K), along_K - w_K * along_K.sum()

    options = {"ftol": 1e-14, "gtol": 1e-9, "maxls": 50, "maxiter": 1000}
    start_K = np.log(prior.centre_K)
    found = minimize(value_and_slope, start_K, jac=True, method="L-BFGS-B", options=options)
    if not found.success and np.abs(found.jac).max() > _SLOPE:
        raise RuntimeError(f"w* was not found: {found.message}, slope {np.abs(found.jac).max():.2g}")
    return np.asarray(softmax(found.x))


def _halve(pool: Pool, rng: np.random.Generator) -> tuple[Pool, Pool]:
    """Two halves at random, gold and other answers each halved."""
    first_Y = np.zeros(len(pool.good_Y), dtype=bool)
    for label in (True, False):
        places = rng.permutation(np.flatnonzero(pool.good_Y == label))
        first_Y[places[: (len(places) + int(rng.integers(2))) // 2]] = True
    return _part(pool, first_Y), _part(pool, ~first_Y)


def _shared_preference(pools: Sequence[Pool]) -> np.ndarray:
    """b, (K,), of the likeliest log-odds b.(r - r') that y and not y' is gold, over such pairs of all pools.

    Neither on the simplex nor bound to beta, so that gold drawn with it is as clear as the gold that there
    is.
    """
    margin_MK = np.concatenate([_gold_margins(pool.rewards_YK, pool.good_Y) for pool in pools])
    offset_M = np.concatenate([_gold_margins(_log_reference(pool), pool.good_Y) for pool in pools])
    share_M = np.concatenate(
        [np.full(n, 1 / n) for n in (int(p.good_Y.sum() * (~p.good_Y).sum()) for p in pools)]
    )

    def loss(b_K: np.ndarray) -> tuple[float, np.ndarray]:
        odds_M = offset_M + margin_MK @ b_K
        slope_K = -(share_M * expit(-odds_M)) @ margin_MK
        return float(share_M @ np.logaddexp(0, -odds_M)) / len(pools), slope_K / len(pools)

    # Bounded, because labels that rewards tell apart without error have no largest likelihood.
    limit_K = _CLEAREST / np.maximum(margin_MK.std(axis=0), 1e-12)
    bounds = [(-limit, limit) for limit in limit_K]
    return np.asarray(minimize(loss, np.zeros(len(limit_K)), jac=True, method="L-BFGS-B", bounds=bounds).x)


def _gold_margins(values_Y: np.ndarray, good_Y: np.ndarray) -> np.ndarray:
    """Every gold answer's values minus every other's, (M,) or (M, K)."""
    margin = values_Y[good_Y][:, None] - values_Y[~good_Y][None]
    return np.asarray(margin.reshape(-1, *values_Y.shape[1:]))


def _log_reference(pool: Pool) -> np.ndarray:
    return np.zeros(len(pool.good_Y)) if pool.reference_Y is None else np.asarray(np.log(pool.reference_Y))


def _drawn_alike(pool: Pool, b_K: np.ndarray, rng: np.random.Generator) -> Pool:
    """The pool with as many gold answers, drawn without replacement by exp(b.r)."""
    value_Y = _log_reference(pool) + pool.rewards_YK @ b_K + rng.gumbel(size=len(pool.good_Y))
    good_Y = np.zeros(len(value_Y), dtype=bool)
    good_Y[np.argsort(-value_Y)[: int(pool.good_Y.sum())]] = True
    return Pool(pool.prompt_id, pool.rewards_YK, good_Y, pool.reference_Y)


def _part(pool: Pool, chosen_Y: np.ndarray) -> Pool:
    reference_Y = None if pool.reference_Y is None else pool.reference_Y[chosen_Y]
    return Pool(pool.prompt_id, pool.rewards_YK[chosen_Y], pool.good_Y[chosen_Y], reference_Y)


def _agreement(gold_SP2K: np.ndarray) -> Statistic:
    """Correlation of the halves over prompts:
    covariance by variance, each summed over splits and objectives."""
    first_PM, second_PM = (
        gold_SP2K[:, :, side].swapaxes(0, 1).reshape(gold_SP2K.shape[1], -1) for side in (0, 1)
    )

    def statistic(counts_BP: np.ndarray) -> np.ndarray:
        shares_BP = counts_BP / counts_BP.sum(axis=1, keepdims=True)

        def covariance(a_PM: np.ndarray, b_PM: np.ndarray) -> np.ndarray:
            products_B = shares_BP @ (a_PM * b_PM).sum(axis=1)
            return np.asarray(products_B - ((shares_BP @ a_PM) * (shares_BP @ b_PM)).sum(axis=1))

        variance_B = (covariance(first_PM, first_PM) + covariance(second_PM, second_PM)) / 2
        return np.asarray(covariance(first_PM, second_PM) / np.maximum(variance_B, 1e-12))

    return statistic
