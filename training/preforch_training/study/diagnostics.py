"""What a careful reader of the paper asks: single objectives, when orchestration cannot help, who disagrees
with whom.

In:  study data, cross-fitted rewards, a way to run trials. Out: rows of `records`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import expit

from preforch_training.orchestrator.temperature import FIT
from preforch_training.records import OVERALL
from preforch_training.statistics.bootstrap import Bootstrap, Interval, mean_interval
from preforch_training.statistics.metrics import best_likelihood, pair_hits
from preforch_training.study.choices import Changed, Choice, margins_of
from preforch_training.study.cross_fitting import held_out_rewards
from preforch_training.study.data import StudyData
from preforch_training.study.records import Agreement, CalibrationPoint, RewardQuality

SINGLE_WEIGHT = 0.95
WORST = 20
BINS = 10
STRENGTH = 4.0
"""Scale of simulated preferences: a calibrated margin of one under w° wins with probability sigma(4)."""


def reward_quality(
    data: StudyData, rewards: Sequence[np.ndarray], folds: Sequence[np.ndarray], bootstrap: Bootstrap
) -> list[RewardQuality]:
    """Accuracy and calibration curve of each reward model on its own held-out pairs; margins pooled over
    seeds.

    The curve's probabilities are sigma(s * margin) with one s for all, so it shows shape, not the fit of s.
    """
    found = []
    held_out = [
        held_out_rewards(rewards_FUK, fold_P[data.prompt_U])
        for rewards_FUK, fold_P in zip(rewards, folds, strict=True)
    ]
    for name in data.names:
        margin_SM = own_margins(data, held_out, name)
        _, scale = best_likelihood(margin_SM.ravel())
        curve = calibration_curve(expit(scale * margin_SM.ravel()))
        pairs = sum(point.pairs for point in curve)
        found.append(
            RewardQuality(
                objective=name,
                pairs=margin_SM.shape[1],
                accuracy=pair_accuracy(data, held_out, name, bootstrap),
                curve=tuple(curve),
                error=sum(point.pairs * abs(point.predicted - point.observed) for point in curve) / pairs,
            )
        )
    return found


def own_margins(data: StudyData, held_out: Sequence[np.ndarray], name: str) -> np.ndarray:
    """Margins of an objective's own pairs, (S, M), of held-out rewards (U, K) by seed."""
    everyone_P = np.ones(len(data.prompts), dtype=bool)
    return np.array([margins_of(data, rewards_UK, name, everyone_P) for rewards_UK in held_out])


def pair_accuracy(
    data: StudyData, held_out: Sequence[np.ndarray], name: str, bootstrap: Bootstrap
) -> Interval:
    """How often held-out rewards order an objective's own pairs as labelled, over seeds; ties count half."""
    hits_M = pair_hits(own_margins(data, held_out, name)).mean(axis=0)
    prompt_M = data.prompt_U[data.pairs[name][:, 0]]
    return mean_interval(hits_M, prompt_M, bootstrap=bootstrap)


def calibration_curve(probability_M: np.ndarray) -> list[CalibrationPoint]:
    """Pairs read from their likelier side: predicted at least a half,
    won where the likelier response was chosen."""
    likelier_M = np.maximum(probability_M, 1 - probability_M)
    won_M = pair_hits(probability_M - 0.5)
    return [
        CalibrationPoint(
            predicted=float(likelier_M[rows].mean()), observed=float(won_M[rows].mean()), pairs=len(rows)
        )
        for rows in np.array_split(np.argsort(likelier_M), BINS)
        if len(rows)
    ]


def agreements(data: StudyData, margins: Sequence[np.ndarray], bootstrap: Bootstrap) -> list[Agreement]:
    """How often the chosen response has the higher calibrated reward; `margins`: (N, K) by seed."""
    mean_NK = np.mean(margins, axis=0)
    found = []
    for k, name in enumerate(data.names):
        hits_N = pair_hits(np.array([margin_NK[:, k] for margin_NK in margins])).mean(axis=0)
        worst_W = np.argsort(mean_NK[:, k])[:WORST]
        found.append(
            Agreement(
                objective=name,
                share=mean_interval(hits_N, data.prompt_N, bootstrap=bootstrap),
                worst=tuple((data.overall_ids[row], float(mean_NK[row, k])) for row in worst_W),
            )
        )
    return found


def prefers(objective: int) -> Changed:
    """Every overall pair decided by one objective's calibrated reward alone."""

    def change(data: StudyData, calibrated_UK: np.ndarray) -> tuple[StudyData, np.ndarray]:
        left_N, right_N = data.overall_N2.T
        return _swap(
            data, calibrated_UK[left_N, objective] < calibrated_UK[right_N, objective]
        ), calibrated_UK

    return change


def simulates(weights_PK: np.ndarray, *, mix: float, seed: int) -> Changed:
    """Preferences drawn by sigma(4 w°(x).margin) under known weights, on rewards whose objectives are mixed.

    `mix` = 0 leaves the rewards alone; towards 1 every objective becomes their mean, so that margins
    correlate.
    """

    def change(data: StudyData, calibrated_UK: np.ndarray) -> tuple[StudyData, np.ndarray]:
        mixed_UK = (1 - mix) * calibrated_UK + mix * calibrated_UK.mean(axis=1, keepdims=True)
        margin_NK = np.subtract(*(mixed_UK[rows] for rows in data.overall_N2.T))
        gain_N = (weights_PK[data.prompt_N] * margin_NK).sum(axis=1)
        # The same draw for every mix and fold: only what is changed differs.
        chance_N = np.random.default_rng(seed).random(len(gain_N))
        return _swap(data, chance_N > expit(STRENGTH * gain_N)), mixed_UK

    return change


def _swap(data: StudyData, swap_N: np.ndarray) -> StudyData:
    """Chosen and rejected exchanged in some overall pairs."""
    overall_N2 = np.where(swap_N[:, None], data.overall_N2[:, ::-1], data.overall_N2)
    return replace(data, pairs={**data.pairs, OVERALL: overall_N2})


def known_weights(data: StudyData, features_PD: np.ndarray, *, vary: bool) -> np.ndarray:
    """Weights to simulate with, (P, K): 0.8 on one objective, that goes by category or is the first one for
    all.

    Prompts without categories are parted by the sign of the first principal component of their vectors.
    """
    count = len(data.names)
    group_P = np.unique(data.category_P, return_inverse=True)[1]
    if group_P.max() == 0:
        centred_PD = features_PD - features_PD.mean(axis=0)
        group_P = (centred_PD @ np.linalg.svd(centred_PD, full_matrices=False)[2][0] > 0).astype(int)
    known_PK = np.full((len(group_P), count), 0.2 / (count - 1))
    known_PK[np.arange(len(group_P)), group_P % count if vary else 0] = 0.8
    return known_PK


def single_choices(recommended: Choice, paper: Choice) -> list[Choice]:
    """Every target with the losses that use it, and the gate."""
    varied = [
        recommended.model_copy(update={"target": target, "loss": loss, "tau": tau})
        for target in ("chosen_softmax", "advantage_softmax", "margin_softmax")
        for loss in ("reverse", "forward", "regress")
        for tau in dict.fromkeys([paper.tau, recommended.tau])
        if tau != FIT or loss == "regress"
    ]
    return [*varied, recommended.model_copy(update={"loss": "bt_gate", "entropy_prior": 0.0})]
