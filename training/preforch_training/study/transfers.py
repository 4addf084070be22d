"""Everything fitted on a run's data, judged on another source of overall pairs.

The other source's prompts are a fold of their own that nothing trains on: reward models, calibration,
orchestrator and best constant come from the run's data, out-of-fold among themselves.
"""

from collections.abc import Callable, Sequence

import numpy as np

from preforch_training.data.splits import first_turn
from preforch_training.records import OVERALL, PreferencePair, Prompt
from preforch_training.statistics.bootstrap import Bootstrap, mean_interval
from preforch_training.study.choices import Choice, run_trial
from preforch_training.study.cross_fitting import FitReward, crossfit
from preforch_training.study.data import StudyData, gather, prompt_folds
from preforch_training.study.judging import hits_of
from preforch_training.study.records import Transfer


def judge_transfer(
    own: tuple[Sequence[Prompt], Sequence[PreferencePair]],
    other: tuple[Sequence[Prompt], Sequence[PreferencePair]],
    names: tuple[str, ...],
    choice: Choice,
    fit_of: Callable[[StudyData], FitReward],
    features_of: Callable[[StudyData], np.ndarray],
    *,
    source: str,
    folds: int,
    bootstrap: Bootstrap,
) -> Transfer:
    """One seed. Raises ValueError where the other source has no overall pair on a prompt that is new."""
    known = {first_turn(prompt.messages) for prompt in own[0]}
    prompts = [prompt for prompt in other[0] if first_turn(prompt.messages) not in known]
    new = {prompt.id for prompt in prompts}
    pairs = [pair for pair in other[1] if pair.prompt_id in new and pair.objective == OVERALL]
    if not pairs:
        raise ValueError(f"study: {source} has no overall pairs on prompts that the run does not have")
    data = gather([*own[0], *prompts], [*own[1], *pairs], names)
    foreign_P = np.array([prompt.id in new for prompt in data.prompts])
    fold_P = np.where(foreign_P, folds, prompt_folds(data, folds, seed=bootstrap.seed))
    rewards_FUK = crossfit(data, fit_of(data), fold_P, seed=bootstrap.seed, judged=folds)
    features_PD = features_of(data)
    trial = run_trial(data, rewards_FUK, features_PD, fold_P, choice, judged=folds)
    rows_N = np.flatnonzero(foreign_P[data.prompt_N])
    prompt_M = data.prompt_N[rows_N]
    hits_M, base_M = (hits_of(w_PK[data.prompt_N], trial)[rows_N] for w_PK in (trial.f_PK, trial.constant_PK))
    return Transfer(
        source=source,
        pairs=len(rows_N),
        mean=dict(zip(names, trial.f_PK[foreign_P].mean(axis=0).tolist(), strict=True)),
        accuracy=mean_interval(hits_M, prompt_M, bootstrap=bootstrap),
        gain=mean_interval(hits_M - base_M, prompt_M, bootstrap=bootstrap),
    )
