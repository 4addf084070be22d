"""One choice of method, judged on unseen prompts: cross-fitted rewards, calibration, targets, head.

In:  `StudyData`, cross-fitted rewards (`crossfit`), vectors of the prompts, folds.
Out: `Trial`: for every prompt the weights that the fold without it gives, for every overall pair its held-out
     margin.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from preforch_models.calibration import Calibration
from preforch_models.calibration import Method as CalibrationMethod
from preforch_models.objectives import Record

from preforch_training.orchestrator.config import Loss, Target
from preforch_training.orchestrator.linear_head import Head, Labelled, Vectors, fit_head
from preforch_training.orchestrator.targets import (
    best_constant,
    labels_for,
    target_weights,
)
from preforch_training.orchestrator.temperature import FIT, fit_tau
from preforch_training.records import keys_of
from preforch_training.scores.calibration import fit_calibration
from preforch_training.scores.pairs import PairRewards
from preforch_training.statistics.metrics import preference_hits, simplex_grid
from preforch_training.study.data import StudyData

GRID_STEP = {2: 0.01, 3: 0.05, 4: 0.1}
Changed = Callable[[StudyData, np.ndarray], tuple[StudyData, np.ndarray]]
"""A what-if: other pairs of the same prompts, other calibrated rewards (U, K), or both."""


class Choice(Record):
    """What METHOD leaves open. `entropy_prior` concerns `bt_gate` only,
    which in turn has no target and no tau."""

    calibration: CalibrationMethod
    target: Target
    loss: Loss
    tau: float | Literal["fit"]
    features: str = "mean of layers -1"
    """Of the prompt: pooling and layers of the frozen encoder."""
    entropy_prior: float = 0.0

    @property
    def fits_tau(self) -> bool:
        """Whether held-out pairs choose tau; "fit" means nothing to other losses than `regress`."""
        return self.tau == FIT and self.loss == "regress"

    @property
    def training_tau(self) -> float:
        """tau while the head is fitted."""
        return 1.0 if self.tau == FIT else self.tau

    def __str__(self) -> str:
        if self.loss == "bt_gate":
            return f"{self.calibration}, bt_gate, entropy prior {self.entropy_prior:g}, {self.features}"
        tau = self.tau if self.tau == FIT else f"{self.tau:g}"
        return f"{self.calibration}, {self.target}, {self.loss}, tau {tau}, {self.features}"


@dataclass(frozen=True)
class Trial:
    """Everything held out. `constant_PK`: per fold the constant that orders most training pairs as labelled;
    `oracle_PK` the same for each category; `fitted_PK`: the constant with the least training loss.
    """

    f_PK: np.ndarray
    constant_PK: np.ndarray
    fitted_PK: np.ndarray
    oracle_PK: np.ndarray
    margin_NK: np.ndarray
    target_NK: np.ndarray


def run_trial(
    data: StudyData,
    rewards_FUK: np.ndarray,
    features_PD: Vectors | Callable[[np.ndarray], Vectors],
    fold_P: np.ndarray,
    choice: Choice,
    *,
    changed: Changed | None = None,
    train_share: float = 1.0,
    train_draw: int = 0,
    judged: int | None = None,
) -> Trial:
    """Fit and judge a choice fold by fold, or on the `judged` fold alone; the others' rows are then zero.

    `features_PD`: vectors, or a function of the training prompts' mask that makes them (TF-IDF).
    `train_share`: fit head and constants on so many of the training prompts, drawn by `train_draw`.
    """
    prompts, count, pairs = len(data.prompts), len(data.names), len(data.overall_N2)
    f_PK, constant_PK, fitted_PK, oracle_PK = (np.zeros((prompts, count)) for _ in range(4))
    margin_NK, target_NK = (np.zeros((pairs, count)) for _ in range(2))
    kept_P = np.random.default_rng(train_draw).random(prompts) < train_share
    for fold in range(int(fold_P.max()) + 1) if judged is None else [judged]:
        test_P = fold_P == fold
        # Another fold chooses the penalty, so that nothing of the judged one is read.
        held_out_P = fold_P == (fold + 1) % (int(fold_P.max()) + 1)
        known_N = (~test_P & kept_P)[data.prompt_N]
        calibration = calibrate(data, rewards_FUK[fold], ~test_P, choice.calibration)
        calibrated_UK = calibration.apply_matrix(rewards_FUK[fold])
        rewards = overall_rewards(
            *((data, calibrated_UK) if changed is None else changed(data, calibrated_UK))
        )
        fold_margin_NK = rewards.chosen_NK - rewards.rejected_NK
        labels_NK = labels_for(rewards, target=choice.target, tau=choice.training_tau, loss=choice.loss)
        vectors_PD = features_PD(~test_P) if callable(features_PD) else features_PD
        held_out_N = known_N & held_out_P[data.prompt_N]
        head, tau = fit_choice(
            choice, vectors_PD, Labelled(data.prompt_N, labels_NK), fold_margin_NK, known_N, held_out_N
        )
        f_PK[test_P] = head.weights(vectors_PD[test_P])
        constant_PK[test_P] = most_accurate(fold_margin_NK[known_N])
        fitted_PK[test_P] = best_constant(
            labels_NK[known_N], loss=choice.loss, tau=tau, entropy_prior=choice.entropy_prior
        )
        category_N = data.category_P[data.prompt_N]
        for category in np.unique(data.category_P[test_P]):
            rows = known_N & (category_N == category)
            best_K = most_accurate(fold_margin_NK[rows if rows.any() else known_N])
            oracle_PK[test_P & (data.category_P == category)] = best_K
        judged_N = test_P[data.prompt_N]
        margin_NK[judged_N] = fold_margin_NK[judged_N]
        sides = (rewards.chosen_NK, rewards.rejected_NK, rewards.others_NK)
        target = "margin_softmax" if choice.loss == "bt_gate" else choice.target
        target_NK[judged_N] = target_weights(*sides, target=target, tau=tau)[judged_N]
    return Trial(f_PK, constant_PK, fitted_PK, oracle_PK, margin_NK, target_NK)


def fit_choice(
    choice: Choice,
    vectors_PD: Vectors,
    rows: Labelled,
    margin_NK: np.ndarray,
    known_N: np.ndarray,
    held_out_N: np.ndarray,
) -> tuple[Head, float]:
    """The head of the `known_N` rows and its tau; some of them, `held_out_N`, choose penalty and tau."""
    known, held_out, rest = (
        Labelled(rows.row_N[mask_N], rows.labels_NK[mask_N])
        for mask_N in (known_N, held_out_N, known_N & ~held_out_N)
    )
    tau = choice.training_tau
    fit = partial(fit_head, loss=choice.loss, tau=tau, entropy_prior=choice.entropy_prior)
    first = fit(vectors_PD, rest, held_out)
    head = fit(vectors_PD, known, held_out, penalties=(first.penalty,))
    if not choice.fits_tau:
        return head, tau
    # By the head that has not seen the pairs which choose it.
    tau = fit_tau(first.logits(vectors_PD[held_out.row_N]), margin_NK[held_out_N]).tau
    return head.times(1 / tau), tau


def calibrate(
    data: StudyData, rewards_UK: np.ndarray, train_P: np.ndarray, method: CalibrationMethod
) -> Calibration:
    """Constants from the responses of the training prompts' overall pairs;
    `log_odds` also from all their pairs."""
    rows = np.unique(data.overall_N2)
    rows = rows[train_P[data.prompt_U[rows]]]
    margins: Mapping[str, np.ndarray] | None = None
    if method == "log_odds":
        margins = {name: margins_of(data, rewards_UK, name, train_P) for name in data.names}
    return fit_calibration(rewards_UK[rows], data.names, method=method, margins=margins)


def margins_of(data: StudyData, rewards_UK: np.ndarray, name: str, train_P: np.ndarray) -> np.ndarray:
    """Raw margins of an objective's own pairs on some prompts, (M,)."""
    pairs_M2 = data.pairs[name]
    pairs_M2 = pairs_M2[train_P[data.prompt_U[pairs_M2[:, 0]]]]
    k = data.names.index(name)
    return np.asarray(rewards_UK[pairs_M2[:, 0], k] - rewards_UK[pairs_M2[:, 1], k])


def overall_rewards(data: StudyData, calibrated_UK: np.ndarray) -> PairRewards:
    """The overall pairs with calibrated rewards; others = the prompt's other responses in overall pairs."""
    chosen_N, rejected_N = data.overall_N2.T
    rows = np.unique(data.overall_N2)
    prompts = len(data.prompts)
    sums_PK = np.zeros((prompts, len(data.names)))
    np.add.at(sums_PK, data.prompt_U[rows], calibrated_UK[rows])
    sizes_P = np.bincount(data.prompt_U[rows], minlength=prompts)
    others_NK = sums_PK[data.prompt_N] - calibrated_UK[chosen_N]
    return PairRewards(
        prompt_key_N=keys_of(data.prompts[p].id for p in data.prompt_N),
        chosen_NK=calibrated_UK[chosen_N],
        rejected_NK=calibrated_UK[rejected_N],
        others_NK=others_NK / (sizes_P[data.prompt_N] - 1)[:, None],
    )


def most_accurate(margin_NK: np.ndarray) -> np.ndarray:
    """The constant weights on a grid that order most pairs as labelled, (K,);
    of those that tie, the most central."""
    grid_GK = simplex_grid(margin_NK.shape[1], GRID_STEP.get(margin_NK.shape[1], 0.2))
    hits_G = np.array([preference_hits(weights_K[None], margin_NK).mean() for weights_K in grid_GK])
    tied_TK = grid_GK[hits_G >= hits_G.max() - 1e-12]
    # Their mean may itself be worse, where they lie on two sides of it.
    return np.asarray(tied_TK[((tied_TK - tied_TK.mean(axis=0)) ** 2).sum(axis=1).argmin()])
