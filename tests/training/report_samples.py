"""Reports of small runs, whole and made by hand, for the tests of what is written of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from preforch_models.calibration import Calibration, Constants
from preforch_training.report.facts import Facts
from preforch_training.report.orchestrator import report_orchestrator
from preforch_training.report.policies.comparison import report_policies
from preforch_training.report.policies.plan import OFFLINE, ONLINE, Contender, make_plan
from preforch_training.report.policies.records import OnlineRound
from preforch_training.report.records import ConfidenceReport, Report, Stability, StageCost
from preforch_training.report.reward import report_rewards
from preforch_training.report.verdicts import find_warnings, judge_run
from preforch_training.statistics.bootstrap import Interval
from preforch_training.statistics.metrics import shuffle_within
from preforch_training.study.choices import Choice
from preforch_training.study.records import (
    Agreement,
    CalibrationPoint,
    ChoiceResult,
    PredictorResult,
    Predictors,
    RewardQuality,
    SingleObjective,
    SizePoint,
    Study,
    WhatIf,
)
from report_world import BOOTSTRAP, NAMES, EchoSampler, LinearTruth, make_facts, make_judge

CURVES = {"orchestrator": {"loss": [(10.0, 0.5), (20.0, 0.4)], "eval_loss": [(20.0, 0.45)]}}


def make_stability() -> Stability:
    """Of one surface rewording."""
    moved, stays = (Interval(value=v, low=v - 0.01, high=v + 0.01, groups=9) for v in (0.02, 0.9))
    return Stability(kind="typos", distance=moved, same_top=stays, true_distance=None)


ROUND = OnlineRound(
    policy="wic",
    round=1,
    samples=8000,
    kept_prompts=0.62,
    below_best_known=0.37,
    gain_over_known=0.51,
    utility=0.9,
    utility_kept=1.4,
    own_fold_mean={"helpful": -0.12, "harmless": 0.0, "humor": 0.3},
    own_fold_sd={"helpful": 0.41, "harmless": 0.2, "humor": 0.1},
    kept_changes=0.23,
)
POLICIES = (Contender(OFFLINE, Path("round-0")), Contender(ONLINE, Path("round-1")))


def make_report(
    f_of: Callable[[Facts], np.ndarray], *, policies: Sequence[Contender] = POLICIES, seed: int = 0
) -> Report:
    """The report of a run whose orchestrator recommends `f_of(facts)`."""
    facts = make_facts()
    f = f_of(facts)
    calibration = Calibration(method="none", constants={name: Constants() for name in NAMES})
    rewards = report_rewards(facts, [], {}, calibration, LinearTruth(), BOOTSTRAP)
    orchestrator = report_orchestrator(facts, f, loss="forward", bootstrap=BOOTSTRAP)
    plan = make_plan(
        facts, f, np.ones(len(f), dtype=bool), step=0.2, sweep_prompts=12, utility_prompts=18, seed=4
    )
    sampler = EchoSampler({"round-0": 0.5, "round-1": 1.0, "other": 0.25, "sft": "0.5 0.5 0.5"})
    policy_part = report_policies(policies, sampler, plan, make_judge(facts)) if policies else None
    confidence = ConfidenceReport(mode="off", held_out=(), unlike=())
    return Report(
        preset="recommended",
        overrides=("orchestrator.tau = 0.7 (preset: fit)",),
        tau=0.7,
        seed=seed,
        world="0" * 64,
        method={"target": "advantage_softmax", "tau": 1.0, "loss": "forward", "calibration": "none"},
        objectives=NAMES,
        rewards=rewards,
        orchestrator=orchestrator,
        confidence=confidence,
        stability=(make_stability(),),
        policy=policy_part,
        rounds=(ROUND,) if policies else (),
        study=None,
        stages=(StageCost(stage="data", seconds=1.0 + seed, peak_memory_mib=100.0),),
        verdicts=tuple(judge_run(rewards, orchestrator, policy_part, confidence, 3e-7)),
        warnings=tuple(find_warnings(rewards, orchestrator, policy_part, confidence)),
    )


def true_weights(facts: Facts) -> np.ndarray:
    assert facts.true_PK is not None
    return facts.true_PK


def shuffled_weights(facts: Facts) -> np.ndarray:
    return shuffle_within(true_weights(facts), facts.split_P, seed=9)


def make_study() -> Study:
    """Two choices, of which the second is the more likely one; nothing that is optional."""
    one = Interval(value=0.6, low=0.5, high=0.7, groups=9)
    first, second = (
        Choice(calibration="zscore", target="margin_softmax", loss="forward", tau=t) for t in (0.5, 0.1)
    )
    rows = tuple(
        ChoiceResult(
            choice=choice, accuracy=one, gain=one, explained_kl=None, log_likelihood=likelihood, scale=2.0,
            entropy=0.5, separation=None,
        )
        for choice, likelihood in ((first, -0.69), (second, -0.6))
    )  # fmt: skip
    names = NAMES[:2]
    uniform = PredictorResult(name="uniform", accuracy=one, gain=one, explained_kl=None)
    return Study(
        folds=5,
        seeds=3,
        prompts=9,
        pairs=12,
        recommended=first,
        paper=second,
        unfitted={"log_odds": "margins are perfect"},
        over_paper=one,
        rewards=(
            RewardQuality(
                objective=names[0], pairs=4, accuracy=one, error=0.1,
                curve=tuple(
                    CalibrationPoint(predicted=p, observed=o, pairs=2) for p, o in ((0.55, 0.5), (0.9, 1.0))
                ),
            ),
        ),
        sizes=(SizePoint(share=0.5, rewards=dict.fromkeys(names, one), gain=one),),
        correlations={name: {other: 1.0 if name == other else -0.73 for other in names} for name in names},
        agreements=(Agreement(objective=names[0], share=one, worst=(("pair-7", -2.5),)),),
        table=rows,
        predictors=(Predictors(choice=first, rows=(uniform,)),),
        categories=(),
        limit=None,
        single=tuple(
            SingleObjective(choice=choice, objective=name, weight=one, reached=choice == first)
            for choice in (first, second)
            for name in names
        ),
        what_ifs=(WhatIf(name="weights vary", value=0.5, correlation=0.3, gain=one, oracle_gain=one),),
        by_category=None,
        gap=None,
        transfers=(),
        warnings=("orchestration does not beat the best constant",),
    )  # fmt: skip
