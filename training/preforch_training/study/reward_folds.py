"""Nested cross-fitting of the reward models.

For every outer fold i each response gets a reward from models that have not seen its prompt:
* responses of fold i by the models fitted without fold i: what a deployed reward model says of new prompts;
* responses of another fold j by the models fitted without i and j: out-of-fold scores, from which an orchestrator for
  fold i is fitted without ever touching fold i.
A model without {i, j} serves both orders, so F folds need F (F + 1) / 2 models per objective.
"""

from collections.abc import Callable
from itertools import combinations_with_replacement, product

import numpy as np
from tqdm import tqdm

from preforch_training.study.data import Material

FitReward = Callable[[str, np.ndarray, int], Callable[[np.ndarray], np.ndarray]]
"""(objective, pairs (M, 2), seed) -> a scorer of response rows (R,) -> (R,)."""


def crossfit(
    material: Material, fit: FitReward, fold_P: np.ndarray, *, seed: int, judged: int | None = None
) -> np.ndarray:
    """Raw rewards, (F, U, K); only those for one outer fold where it is `judged` alone, the others are NaN."""
    folds = int(fold_P.max()) + 1
    fold_U = fold_P[material.prompt_U]
    rewards_FUK = np.full((folds, len(material.responses), len(material.names)), np.nan)
    left_out = list(combinations_with_replacement(range(folds), 2))
    if judged is not None:
        left_out = list(product(range(folds), [judged]))
    for number, (i, j) in enumerate(tqdm(left_out, desc="crossfit rewards", unit="fold pair")):
        for k, name in enumerate(material.names):
            pairs_M2 = material.pairs[name]
            scorer = fit(name, pairs_M2[~np.isin(fold_U[pairs_M2[:, 0]], (i, j))], seed + number)
            for outer, scored in {(i, j), (j, i)}:
                rows = np.flatnonzero(fold_U == scored)
                rewards_FUK[outer, rows, k] = scorer(rows)
    needed_FUK = rewards_FUK if judged is None else rewards_FUK[judged]
    if not np.isfinite(needed_FUK).all():
        raise ValueError("study: a reward is not finite")
    return rewards_FUK


def fitted_on_share(
    material: Material, fit: FitReward, fold_P: np.ndarray, *, share: float, seed: int
) -> np.ndarray:
    """Each response's reward by models fitted on a share of the prompts outside its fold, (U, K).

    Larger shares hold the prompts of smaller ones.
    """
    drawn_P = np.random.default_rng(seed).random(len(material.prompts)) < share
    fold_U, drawn_U = fold_P[material.prompt_U], drawn_P[material.prompt_U]
    rewards_UK = np.full((len(material.responses), len(material.names)), np.nan)
    for fold in tqdm(range(int(fold_P.max()) + 1), desc=f"rewards on {share:g} of the prompts", unit="fold"):
        for k, name in enumerate(material.names):
            first_M = material.pairs[name][:, 0]
            scorer = fit(
                name, material.pairs[name][drawn_U[first_M] & (fold_U[first_M] != fold)], seed + fold
            )
            rows = np.flatnonzero(fold_U == fold)
            rewards_UK[rows, k] = scorer(rows)
    return rewards_UK


def held_out(rewards_FUK: np.ndarray, fold_U: np.ndarray) -> np.ndarray:
    """Each response's reward by the models that left out exactly its fold, (U, K)."""
    return np.asarray(rewards_FUK[fold_U, np.arange(len(fold_U))])
