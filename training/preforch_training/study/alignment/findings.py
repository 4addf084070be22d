"""The closed-form alignment gap in a study (METHOD 9), on the responses of each prompt's overall pairs.

In:  study data, nested rewards (F, U, K) and folds, each by seed; the trials of the recommended choice on any
     share of the training prompts.
Out: `GapReport`.

Gold is a response that stands as chosen in an overall pair; one that stands as rejected only is not. w*(x) is
fitted to these labels, never to targets of f. The seeds of a prompt are drawn together in every interval.

Decisions of ours:
1. Pools of fold i carry the rewards of the models without fold i, under the constants of fold i. So do the
   training pools of fold i, whose rewards leave out their own fold as well: nothing of fold i is in its best
   constant.
2. One beta for all, as a gap is in units of reward and depends on it: the likeliest over every fold's
   training pools. It is part of the measure and no predictor has it for itself, except that it suits the best
   constant.
3. One prior per seed, its centre the mean of the folds' best constants: w* of pools of different folds would
   else differ by their centres, and halves of pools would agree about that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from preforch_models.calibration import Method as CalibrationMethod

from preforch_training.statistics.bootstrap import Bootstrap
from preforch_training.statistics.metrics import shuffle_within
from preforch_training.statistics.predictors import CONSTANT, FITTED_CONSTANT, GOLD, SHUFFLED, UNIFORM, F
from preforch_training.study.alignment.closed_form import (
    Pool,
    PoolCheck,
    check_pool,
    gap_table,
    learning_curve,
)
from preforch_training.study.alignment.gold_weights import (
    GoldWeights,
    Prior,
    choose_beta,
    fit_gold_weights,
    gold_constant,
    spread,
    varies,
)
from preforch_training.study.choices import Trial, calibrate
from preforch_training.study.data import StudyData
from preforch_training.study.records import GapFindings, GapReport

BETAS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)

TrialsAt = Callable[[float], Sequence[Trial]]
"""Share of the training prompts -> the trials of one choice fitted on that share, by seed."""


@dataclass(frozen=True)
class _Part:
    """One seed: pools of the prompts with gold and other responses, their w*, each one's best constant."""

    gold: GoldWeights
    prior: Prior
    rows_P: np.ndarray
    constant_PK: np.ndarray


def measure_gap(
    data: StudyData,
    rewards: Sequence[np.ndarray],
    folds: Sequence[np.ndarray],
    trials_at: TrialsAt,
    *,
    calibration: CalibrationMethod,
    bootstrap: Bootstrap,
    betas: Sequence[float] = BETAS,
    shares: Sequence[float] = SHARES,
) -> GapReport:
    """Spread of w* first; gaps only where it varies.

    `rewards` (F, U, K), `folds` (P,) by seed; `calibration` as the trials have it.
    """
    views = [
        fold_pools(data, rewards_FUK, fold_P, calibration)
        for rewards_FUK, fold_P in zip(rewards, folds, strict=True)
    ]
    likelihoods = beta_likelihoods(views, folds, betas)
    beta = max(likelihoods, key=lambda tried: likelihoods[tried])
    parts = [_fit_part(pools, fold_P, beta=beta) for pools, fold_P in zip(views, folds, strict=True)]
    spreads = tuple(
        spread(
            part.gold, beta=beta, prior=part.prior, bootstrap=replace(bootstrap, seed=bootstrap.seed + seed)
        )
        for seed, part in enumerate(parts)
    )
    goes_on = all(varies(found) for found in spreads)
    constant_K = np.mean([part.prior.centre_K for part in parts], axis=0)
    pools = parts[0].gold.pools
    return GapReport(
        beta=beta,
        likelihoods={f"{tried:g}": found for tried, found in likelihoods.items()},
        pools=len(pools),
        all_gold=len(parts[0].gold.all_gold),
        responses=sum(len(pool.good_Y) for pool in pools),
        gold=sum(int(pool.good_Y.sum()) for pool in pools),
        constant=dict(zip(data.names, constant_K.tolist(), strict=True)),
        spread=spreads,
        verdict=_verdict(goes_on),
        findings=_find(parts, folds, trials_at, beta=beta, bootstrap=bootstrap, shares=shares)
        if goes_on
        else None,
    )


def fold_pools(
    data: StudyData, rewards_FUK: np.ndarray, fold_P: np.ndarray, calibration: CalibrationMethod
) -> list[dict[int, Pool]]:
    """For every fold the pools of all prompts, by prompt's row,
    as the models and constants of that fold see them."""
    chosen = set(data.overall_N2[:, 0].tolist())
    rows = np.unique(data.overall_N2)
    prompt_of = data.prompt_U[rows]
    members = {int(p): rows[prompt_of == p] for p in np.unique(prompt_of)}
    good = {p: np.array([row in chosen for row in found.tolist()]) for p, found in members.items()}
    views = []
    for fold, rewards_UK in enumerate(rewards_FUK):
        calibrated_UK = calibrate(data, rewards_UK, fold_P != fold, calibration).apply_matrix(rewards_UK)
        views.append(
            {p: Pool(data.prompts[p].id, calibrated_UK[found], good[p]) for p, found in members.items()}
        )
    return views


def beta_likelihoods(
    views: Sequence[Sequence[dict[int, Pool]]], folds: Sequence[np.ndarray], betas: Sequence[float]
) -> dict[float, float]:
    """Mean log pi_w(gold) over the training pools of every fold and seed,
    each fold under its own best constant."""
    found = [
        choose_beta(_training(pools, fold_P, fold), grid=betas)[1]
        for by_fold, fold_P in zip(views, folds, strict=True)
        for fold, pools in enumerate(by_fold)
    ]
    return {beta: float(np.mean([likelihoods[beta] for likelihoods in found])) for beta in betas}


def _training(pools: dict[int, Pool], fold_P: np.ndarray, fold: int) -> list[Pool]:
    return [pool for p, pool in pools.items() if fold_P[p] != fold]


def _fit_part(by_fold: Sequence[dict[int, Pool]], fold_P: np.ndarray, *, beta: float) -> _Part:
    constant_FK = np.array(
        [gold_constant(_training(pools, fold_P, fold), beta=beta) for fold, pools in enumerate(by_fold)]
    )
    prior = Prior(constant_FK.mean(axis=0))
    held_out = {p: by_fold[fold_P[p]][p] for p in by_fold[0]}
    gold = fit_gold_weights(list(held_out.values()), beta=beta, prior=prior)
    row_of = {pool.prompt_id: p for p, pool in held_out.items()}
    rows_P = np.array([row_of[pool.prompt_id] for pool in gold.pools])
    return _Part(gold, prior, rows_P, constant_FK[fold_P[rows_P]])


def _verdict(goes_on: bool) -> str:
    if goes_on:
        return (
            "w* varies by prompt beyond sampling noise under the rewards of every seed, so gaps are compared."
        )
    return (
        "w* barely varies by prompt: sampling noise explains what it does, or what is left is too little to "
        "matter. No weights that depend on the prompt can be told from the best constant on these pools; "
        "this part of the report stops here."
    )


def _find(
    parts: Sequence[_Part],
    folds: Sequence[np.ndarray],
    trials_at: TrialsAt,
    *,
    beta: float,
    bootstrap: Bootstrap,
    shares: Sequence[float],
) -> GapFindings:
    trials = trials_at(1.0)
    # The pools of all seeds in one sequence: intervals group them by prompt.
    pools = tuple(chain.from_iterable(part.gold.pools for part in parts))
    gold_QK = np.concatenate([part.gold.weights_PK for part in parts])
    rows = [part.rows_P for part in parts]
    constant_QK = np.concatenate([part.constant_PK for part in parts])
    shuffled = [
        shuffle_within(trial.f_PK[rows_P], np.zeros(len(rows_P)), seed=bootstrap.seed + seed)
        for seed, (trial, rows_P) in enumerate(zip(trials, rows, strict=True))
    ]
    predictors = {
        GOLD: gold_QK,
        F: _stacked([trial.f_PK for trial in trials], rows),
        CONSTANT: constant_QK,
        FITTED_CONSTANT: _stacked([trial.fitted_PK for trial in trials], rows),
        UNIFORM: np.full_like(gold_QK, 1 / gold_QK.shape[1]),
        SHUFFLED: np.concatenate(shuffled),
    }
    trained = np.mean([[(fold_P != fold).sum() for fold in np.unique(fold_P)] for fold_P in folds])
    outcomes = {
        round(share * trained): [_stacked([trial.f_PK for trial in trials_at(share)], rows)]
        for share in shares
    }
    checks = [
        check_pool(pool.rewards_YK, w_K, gold_K, beta=beta)
        for weights_QK in predictors.values()
        for pool, w_K, gold_K in zip(pools, weights_QK, gold_QK, strict=True)
    ]
    return GapFindings(
        check=PoolCheck(**{name: max(getattr(c, name) for c in checks) for name in PoolCheck.model_fields}),
        checked=len(checks),
        table=gap_table(pools, predictors, gold_QK, beta=beta, bootstrap=bootstrap),
        curve=learning_curve(pools, outcomes, gold_QK, beta=beta, bootstrap=bootstrap),
    )


def _stacked(weights: Sequence[np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([weights_PK[rows_P] for weights_PK, rows_P in zip(weights, rows, strict=True)])
