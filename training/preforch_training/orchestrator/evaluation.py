"""How well weights explain target weights: explained KL (METHOD 4). Objectives in the last axis.

Explained KL of predictions f on targets w*, for the loss D that f was trained with (Eq. 8):

    1 - E D(f, w*) / min_c E D(c, w*),      D(f, w*) = KL(f || w*) (reverse) or KL(w* || f) (every other
    loss).

The constant c is the best one on the very targets that are explained, so no constant gets above 0.
"""

import numpy as np

from preforch_training.orchestrator.config import Loss
from preforch_training.statistics.bootstrap import Bootstrap, Interval, Statistic, interval_of, sums_by_group

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
    """Explained KL as a function of how often each group was drawn;
    the best constant is found anew for each draw."""
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
    f_NK: np.ndarray, target_NK: np.ndarray, prompt_N: np.ndarray, *, loss: Loss, bootstrap: Bootstrap
) -> Interval:
    """Explained KL with its interval over prompts."""
    group_N = np.unique(prompt_N, return_inverse=True)[1]
    statistic = explained_statistic(f_NK, target_NK, group_N, loss=loss)
    return interval_of(statistic, groups=int(group_N.max()) + 1, bootstrap=bootstrap)


def share_of_ceiling(
    f_NK: np.ndarray,
    oracle_NK: np.ndarray,
    target_NK: np.ndarray,
    prompt_N: np.ndarray,
    *,
    loss: Loss,
    bootstrap: Bootstrap,
) -> Interval | None:
    """Explained KL of f over that of the oracle; None where the oracle explains nothing."""
    group_N = np.unique(prompt_N, return_inverse=True)[1]
    of_f = explained_statistic(f_NK, target_NK, group_N, loss=loss)
    of_oracle = explained_statistic(oracle_NK, target_NK, group_N, loss=loss)
    groups = int(group_N.max()) + 1
    if of_oracle(np.ones((1, groups)))[0] <= 0:
        return None
    return interval_of(
        lambda counts_BG: of_f(counts_BG) / np.maximum(of_oracle(counts_BG), 1e-3),
        groups=groups,
        bootstrap=bootstrap,
    )
