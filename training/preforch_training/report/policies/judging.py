"""What the answers of one policy are worth: rewards, control, sweep, utility by prompt (METHOD 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preforch_training.demo.truth import Truth
from preforch_training.report.facts import Facts
from preforch_training.report.policies.divergence import divergence
from preforch_training.report.policies.plan import Contender, Plan, arm_of, grid_of
from preforch_training.report.policies.records import Control, EqualWeights, Measure, Scale, SweepPoint
from preforch_training.report.policies.responses import CalibratedScorer, Drawing, Drawn, Query
from preforch_training.statistics.bootstrap import Bootstrap, Interval, mean_interval
from preforch_training.statistics.metrics import control, kendall, spearman, strictly_dominated


@dataclass(frozen=True)
class PolicyJudge:
    """The rewards that answers are judged by, the same for all policies. `reference`: the policy that
    divergences are from; `scales`: of hypervolumes."""

    facts: Facts
    truth: Truth | None
    calibrated: CalibratedScorer
    drawing: Drawing
    bootstrap: Bootstrap
    reference: Path | None = None
    scales: Mapping[Measure, Scale] = field(default_factory=dict)

    def true_rewards(self, drawn: Drawn, asked: Sequence[Query]) -> np.ndarray:
        """(N, K), of the world's truth, which must be known."""
        assert self.truth is not None
        texts = [self.facts.prompts[index].text for index, _ in asked]
        found = [self.truth.rewards(x, y) for x, y in zip(texts, drawn.texts(asked), strict=True)]
        return np.stack(found)

    def calibrated_rewards(self, drawn: Drawn, asked: Sequence[Query]) -> np.ndarray:
        """(N, K), of the run's own full reward models."""
        return self.calibrated([self.facts.prompts[index] for index, _ in asked], drawn.texts(asked))

    def rewards(self, drawn: Drawn, asked: Sequence[Query]) -> dict[Measure, np.ndarray]:
        """(N, K) by each measure that there is."""
        true: dict[Measure, np.ndarray] = {}
        if self.truth is not None:
            true["true"] = self.true_rewards(drawn, asked)
        return {**true, "calibrated": self.calibrated_rewards(drawn, asked)}

    def divergence(self, policy: Contender, drawn: Drawn, asked: Sequence[Query]) -> np.ndarray | None:
        """KL from the reference along each answer, (N,), nats; None without one, and where no single model
        says what comes next: for the best of several answers, and for mixtures."""
        if self.reference is None or policy.best_of > 1:
            return None
        return divergence(policy.folder, self.reference, asked, drawn, self.facts.prompts, self.drawing)

    def mean(self, values_N: np.ndarray, prompt_N: np.ndarray) -> Interval:
        """Mean with its interval over prompts."""
        return mean_interval(values_N, prompt_N, bootstrap=self.bootstrap)

    def means(self, values_NK: np.ndarray, prompt_N: np.ndarray) -> dict[str, Interval]:
        """The same by objective."""
        return {name: self.mean(values_NK[:, k], prompt_N) for k, name in enumerate(self.facts.names)}


@dataclass(frozen=True)
class Sweep:
    """What one policy obtains under every weights of a grid; without weights to read, in its one way."""

    policy: str
    split: str
    measure: Measure
    prompts: np.ndarray
    rewards_PGK: np.ndarray


def sweeps_of(
    policy: Contender, split: str, prompts: np.ndarray, plan: Plan, drawn: Drawn, judge: PolicyJudge
) -> list[Sweep]:
    """One a measure. Calibrated rewards are computed on the control split only, since scoring takes as long
    as drawing."""
    format_, count = judge.drawing.context_format, len(judge.facts.names)
    if policy.reads_weights:
        asked = grid_of(plan, prompts, format_)
    else:
        asked = arm_of(plan, plan.own_weights(policy), format_, prompts)
    if split == plan.control_split:
        measured = judge.rewards(drawn, asked)
    else:
        measured = {"true": judge.true_rewards(drawn, asked)}
    return [
        Sweep(policy.name, split, measure, prompts, rewards_NK.reshape(len(prompts), -1, count))
        for measure, rewards_NK in measured.items()
    ]


def controls_of(sweep: Sweep, plan: Plan, judge: PolicyJudge) -> list[Control]:
    """By objective."""
    found = [
        control(plan.grid_GK, sweep.rewards_PGK, correlation=correlation, bootstrap=judge.bootstrap)
        for correlation in (spearman, kendall)
    ]
    return [
        Control(
            policy=sweep.policy,
            split=sweep.split,
            measure=sweep.measure,
            objective=objective,
            spearman=rho,
            kendall=tau,
        )
        for objective, rho, tau in zip(judge.facts.names, *found, strict=True)
    ]


def points_of(
    policy: Contender, sweep: Sweep, plan: Plan, drawn: Drawn, kl_PG: np.ndarray | None, judge: PolicyJudge
) -> list[SweepPoint]:
    """One for each weights of the grid."""
    dominated_G = strictly_dominated(sweep.rewards_PGK.mean(axis=0))
    asked = grid_of(plan, sweep.prompts, judge.drawing.context_format)
    words_PG = np.array([len(text.split()) for text in drawn.texts(asked)]).reshape(len(sweep.prompts), -1)
    return [
        SweepPoint(
            policy=policy.name,
            split=sweep.split,
            measure=sweep.measure,
            weights=dict(zip(judge.facts.names, weights_K.tolist(), strict=True)),
            rewards=judge.means(sweep.rewards_PGK[:, g], sweep.prompts),
            dominated=bool(dominated_G[g]),
            words=float(words_PG[:, g].mean()),
            kl=None if kl_PG is None else judge.mean(kl_PG[:, g], sweep.prompts),
        )
        for g, weights_K in enumerate(plan.grid_GK)
    ]


def equal_weights(policy: Contender, plan: Plan, drawn: Drawn, judge: PolicyJudge) -> list[EqualWeights]:
    """Where all test prompts are asked with equal weights (paper, Tables 1 to 4)."""
    asked = arm_of(plan, plan.equal_PK, judge.drawing.context_format)
    prompt_N = np.array([index for index, _ in asked])
    return [
        EqualWeights(
            policy=policy.name,
            measure=measure,
            rewards=judge.means(rewards_NK, prompt_N),
            mean=judge.mean(rewards_NK.mean(axis=1), prompt_N),
        )
        for measure, rewards_NK in judge.rewards(drawn, asked).items()
    ]


def best_constant_of_policy(plan: Plan, drawn: Drawn, judge: PolicyJudge) -> np.ndarray:
    """The grid point with the highest mean utility on validation prompts, (K,)."""
    prompts = plan.sweep["validation"]
    asked = grid_of(plan, prompts, judge.drawing.context_format)
    utility_N = true_utilities(drawn, asked, judge)
    return np.asarray(plan.grid_GK[utility_N.reshape(len(prompts), -1).mean(axis=0).argmax()])


def arm_gains(plan: Plan, weights_PK: np.ndarray, drawn: Drawn, judge: PolicyJudge) -> dict[int, float]:
    """Utility by prompt where each prompt is asked with its own weights."""
    asked = arm_of(plan, weights_PK, judge.drawing.context_format)
    prompts = [index for index, _ in asked]
    return dict(zip(prompts, true_utilities(drawn, asked, judge).tolist(), strict=True))


def true_utilities(drawn: Drawn, asked: Sequence[Query], judge: PolicyJudge) -> np.ndarray:
    """w°(x).r(x, y), (N,)."""
    assert judge.facts.true_PK is not None
    true_NK = judge.facts.true_PK[[index for index, _ in asked]]
    return np.asarray((true_NK * judge.true_rewards(drawn, asked)).sum(axis=1))
