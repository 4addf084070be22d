"""What the answers of one policy are worth: rewards, control, sweep, utility by prompt (METHOD 9)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preforch_training.demo.truth import Truth
from preforch_training.report.facts import Facts
from preforch_training.report.policies.plan import Plan, arm_of, grid_of
from preforch_training.report.policies.responses import CalibratedScorer, Drawing, Drawn, Query
from preforch_training.report.records import Control, Measure, SweepPoint
from preforch_training.statistics.bootstrap import Bootstrap, Interval, mean_interval
from preforch_training.statistics.metrics import control, strictly_dominated


@dataclass(frozen=True)
class PolicyJudge:
    """The rewards that answers are judged by, the same for all policies."""

    facts: Facts
    truth: Truth | None
    calibrated: CalibratedScorer
    drawing: Drawing
    bootstrap: Bootstrap

    def true_rewards(self, drawn: Drawn, asked: Sequence[Query]) -> np.ndarray:
        """(N, K), of the demo world's truth, which must be known."""
        assert self.truth is not None
        texts = [self.facts.prompts[index].text for index, _ in asked]
        return np.stack(
            [self.truth.rewards(text, drawn.responses[a]) for text, a in zip(texts, asked, strict=True)]
        )

    def calibrated_rewards(self, drawn: Drawn, asked: Sequence[Query]) -> np.ndarray:
        """(N, K), of the run's own full reward models."""
        return self.calibrated(
            [self.facts.prompts[index] for index, _ in asked], [drawn.responses[a] for a in asked]
        )

    def mean(self, values_N: np.ndarray, prompt_N: np.ndarray) -> Interval:
        """Mean with its interval over prompts."""
        return mean_interval(values_N, prompt_N, bootstrap=self.bootstrap)


def judge_sweep(
    name: str, split: str, prompts: np.ndarray, plan: Plan, drawn: Drawn, judge: PolicyJudge
) -> tuple[list[Control], list[SweepPoint]]:
    """Control and sweep points of one policy on one split, by true rewards where known and by calibrated
    ones.

    Calibrated rewards are computed on the control split only, since scoring takes as long as drawing.
    """
    asked = grid_of(plan, prompts, judge.drawing.context_format)
    names, shape = judge.facts.names, (len(prompts), *plan.grid_GK.shape)
    measures: dict[Measure, np.ndarray] = {}
    if judge.truth is not None:
        measures["true"] = judge.true_rewards(drawn, asked).reshape(shape)
    if split == plan.control_split:
        measures["calibrated"] = judge.calibrated_rewards(drawn, asked).reshape(shape)
    controls, points = [], []
    for measure, rewards_PGK in measures.items():
        found = control(plan.grid_GK, rewards_PGK, bootstrap=judge.bootstrap)
        controls += [
            Control(policy=name, split=split, measure=measure, objective=objective, spearman=value)
            for objective, value in zip(names, found, strict=True)
        ]
        dominated_G = strictly_dominated(rewards_PGK.mean(axis=0))
        points += [
            SweepPoint(
                policy=name,
                split=split,
                measure=measure,
                weights=dict(zip(names, weights_K.tolist(), strict=True)),
                rewards={
                    objective: judge.mean(rewards_PGK[:, g, k], prompts) for k, objective in enumerate(names)
                },
                dominated=bool(dominated_G[g]),
            )
            for g, weights_K in enumerate(plan.grid_GK)
        ]
    return controls, points


def best_constant_of_policy(plan: Plan, drawn: Drawn, judge: PolicyJudge) -> np.ndarray:
    """The grid point with the highest mean utility on validation prompts, (K,)."""
    prompts = plan.sweep["validation"]
    asked = grid_of(plan, prompts, judge.drawing.context_format)
    utility_N = _utilities(drawn, asked, judge)
    return np.asarray(plan.grid_GK[utility_N.reshape(len(prompts), -1).mean(axis=0).argmax()])


def arm_gains(plan: Plan, weights_PK: np.ndarray, drawn: Drawn, judge: PolicyJudge) -> dict[int, float]:
    """Utility by prompt where each prompt is asked with its own weights."""
    asked = arm_of(plan, weights_PK, judge.drawing.context_format)
    prompts = [index for index, _ in asked]
    return dict(zip(prompts, _utilities(drawn, asked, judge).tolist(), strict=True))


def _utilities(drawn: Drawn, asked: Sequence[Query], judge: PolicyJudge) -> np.ndarray:
    """w°(x).r(x, y), (N,)."""
    assert judge.facts.true_PK is not None
    true_NK = judge.facts.true_PK[[index for index, _ in asked]]
    return np.asarray((true_NK * judge.true_rewards(drawn, asked)).sum(axis=1))
