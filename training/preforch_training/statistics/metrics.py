"""The maths of the report (METHOD, sections 4 and 9). Arrays in, arrays or intervals out; objectives in the last axis.

Explained KL of predictions f on targets w*, for the loss D that f was trained with:

    1 - E D(f, w*) / min_c E D(c, w*),      D(f, w*) = KL(f || w*) (reverse) or KL(w* || f) (every other loss).

The constant c is the best one on the very targets that are explained, so no constant gets above 0.
"""

import numpy as np
from scipy.stats import rankdata

from preforch_training.orchestrator.config import Loss
from preforch_training.statistics.bootstrap import Interval, Statistic, bootstrap, sums_by_group

_TINY = 1e-12


def kl(first_NK: np.ndarray, second_NK: np.ndarray) -> np.ndarray:
    """KL(first || second) of each row, nats."""
    first_NK, second_NK = np.maximum(first_NK, _TINY), np.maximum(second_NK, _TINY)
    return np.asarray((first_NK * (np.log(first_NK) - np.log(second_NK))).sum(-1))


def losses(f_NK: np.ndarray, target_NK: np.ndarray, *, loss: Loss) -> np.ndarray:
    """D(f, w*) of each row."""
    return kl(f_NK, target_NK) if loss == "reverse" else kl(target_NK, f_NK)


def explained_statistic(
    f_NK: np.ndarray, target_NK: np.ndarray, group_N: np.ndarray, *, loss: Loss
) -> Statistic:
    """Explained KL as a function of how often each group was drawn; the best constant is found anew for each draw."""
    target_NK = np.maximum(target_NK, _TINY)
    losses_G = sums_by_group(losses(f_NK, target_NK, loss=loss), group_N)
    sizes_G = sums_by_group(np.ones(len(group_N)), group_N)
    logs_GK = sums_by_group(np.log(target_NK), group_N)
    targets_GK = sums_by_group(target_NK, group_N)
    negentropy_G = sums_by_group((target_NK * np.log(target_NK)).sum(-1), group_N)

    def explained(counts_BG: np.ndarray) -> np.ndarray:
        sizes_B = counts_BG @ sizes_G
        if loss == "reverse":
            # min_c KL(c || w*) has c = softmax(E log w*) and the value -logsumexp(E log w*).
            best_B = -np.log(np.exp(counts_BG @ logs_GK / sizes_B[:, None]).sum(-1))
        else:
            constant_BK = counts_BG @ targets_GK / sizes_B[:, None]
            best_B = counts_BG @ negentropy_G / sizes_B - (constant_BK * np.log(constant_BK)).sum(-1)
        return np.asarray(1 - counts_BG @ losses_G / sizes_B / np.maximum(best_B, _TINY))

    return explained


def explained_kl(
    f_NK: np.ndarray, target_NK: np.ndarray, prompt_N: np.ndarray, *, loss: Loss, seed: int, draws: int
) -> Interval:
    """Explained KL with its interval over prompts."""
    group_N = np.unique(prompt_N, return_inverse=True)[1]
    statistic = explained_statistic(f_NK, target_NK, group_N, loss=loss)
    return bootstrap(statistic, groups=int(group_N.max()) + 1, seed=seed, draws=draws)


def share_of_ceiling(
    f_NK: np.ndarray,
    oracle_NK: np.ndarray,
    target_NK: np.ndarray,
    prompt_N: np.ndarray,
    *,
    loss: Loss,
    seed: int,
    draws: int,
) -> Interval | None:
    """Explained KL of f over that of the oracle; None where the oracle explains nothing."""
    group_N = np.unique(prompt_N, return_inverse=True)[1]
    of_f = explained_statistic(f_NK, target_NK, group_N, loss=loss)
    of_oracle = explained_statistic(oracle_NK, target_NK, group_N, loss=loss)
    groups = int(group_N.max()) + 1
    if of_oracle(np.ones((1, groups)))[0] <= 0:
        return None
    return bootstrap(
        lambda counts_BG: of_f(counts_BG) / np.maximum(of_oracle(counts_BG), 1e-3),
        groups=groups,
        seed=seed,
        draws=draws,
    )


def pair_hits(margin_N: np.ndarray) -> np.ndarray:
    """Pair accuracy by pair, (N,): 1 where the chosen response has the higher reward, 0 the lower, a half at ties."""
    return np.asarray((np.sign(margin_N) + 1) / 2)


def preference_hits(weights_NK: np.ndarray, margin_NK: np.ndarray) -> np.ndarray:
    """1 where w.(r+ - r-) is positive, 0 where negative, a half at ties."""
    return pair_hits((weights_NK * margin_NK).sum(-1))


def simplex_grid(count: int, step: float) -> np.ndarray:
    """All weights on multiples of `step`, (G, count); 21 points for three objectives and a step of 0.2."""
    steps = round(1 / step)
    if abs(steps * step - 1) > 1e-9:
        raise ValueError(f"the step of the weights grid must divide 1, got {step}")
    rows = [[i] for i in range(steps + 1)]
    for _ in range(count - 2):
        rows = [[*row, i] for row in rows for i in range(steps + 1 - sum(row))]
    return np.array([[*row, steps - sum(row)] for row in rows]) / steps


def spearman(asked_GK: np.ndarray, obtained_BGK: np.ndarray) -> np.ndarray:
    """Rank correlation over the grid between asked weight k and obtained reward k, (B, K); 0 where nothing varies."""
    asked_GK = rankdata(asked_GK, axis=0)
    obtained_BGK = rankdata(obtained_BGK, axis=1)
    asked_GK = asked_GK - asked_GK.mean(axis=0)
    obtained_BGK = obtained_BGK - obtained_BGK.mean(axis=1, keepdims=True)
    scale_BK = np.sqrt((asked_GK**2).sum(0) * (obtained_BGK**2).sum(1))
    return np.asarray((asked_GK * obtained_BGK).sum(1) / np.maximum(scale_BK, _TINY))


def control(asked_GK: np.ndarray, rewards_PGK: np.ndarray, *, seed: int, draws: int) -> list[Interval]:
    """Spearman of each objective between the asked weight and the mean reward over P prompts."""
    prompts, points, count = rewards_PGK.shape
    flat_PX = rewards_PGK.reshape(prompts, points * count)

    def of_objective(k: int) -> Statistic:
        return lambda counts_BP: spearman(
            asked_GK, (counts_BP @ flat_PX / prompts).reshape(len(counts_BP), points, count)
        )[:, k]

    return [bootstrap(of_objective(k), groups=prompts, seed=seed, draws=draws) for k in range(count)]


def strictly_dominated(points_GK: np.ndarray) -> np.ndarray:
    """Whether another point is higher in every objective, (G,)."""
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
