"""How well a policy listens to weights, and whether weights that depend on the prompt pay (METHOD, section 9).

1. Control and Pareto sweep: all weights of a grid on the same prompts; Spearman between asked weight and mean reward.
2. Prompt-aware utility E[w°(x).r(x, y)] with true weights and true rewards, where the policy is asked for: the
   recommended f(x), the best constant, uniform, f of another prompt, and w° itself. The best constant is the grid point
   with the highest mean utility on validation prompts, drawn from the very policy that is judged.

Policies: `online` (the last online round) and `offline` (round 0). Only the last one answers for every arm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preforch_training.demo.truth import Truth
from preforch_training.records import Prompt
from preforch_training.report.facts import Facts
from preforch_training.report.records import (
    Arm,
    Control,
    Difference,
    Measure,
    PolicyReport,
    SweepPoint,
    Utility,
)
from preforch_training.report.responses import Ask, Drawn, Sampling, ask, draw
from preforch_training.sampling.vllm import Sampler
from preforch_training.statistics.bootstrap import Bootstrap, Interval, mean_interval
from preforch_training.statistics.metrics import control, shuffle_within, simplex_grid, strictly_dominated
from preforch_training.statistics.predictors import CONSTANT, RECOMMENDED, SHUFFLED, TRUE, UNIFORM

ONLINE, OFFLINE, ALL_TESTS = "online", "offline", "test"

CalibratedScorer = Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]
"""(prompts, responses) -> calibrated rewards, (N, K)."""


@dataclass(frozen=True)
class Plan:
    """Whom to ask for what. `asked_G` are the grid's weights; `arms` give all prompts' weights, (P, K)."""

    grid_GK: np.ndarray
    sweep: Mapping[str, np.ndarray]
    """By split, the prompts that answer for the whole grid."""
    utility: Mapping[str, np.ndarray]
    """By test split, the prompts that answer for every arm; empty where the truth is unknown."""
    arms: Mapping[str, np.ndarray]
    control_split: str


@dataclass(frozen=True)
class PolicyJudge:
    """What responses are worth."""

    facts: Facts
    truth: Truth | None
    calibrated: CalibratedScorer
    sampling: Sampling
    bootstrap: Bootstrap

    def true_rewards(self, drawn: Drawn, asks: Sequence[Ask]) -> np.ndarray:
        """True rewards, (N, K)."""
        assert self.truth is not None
        texts = [self.facts.prompts[index].text for index, _ in asks]
        return np.stack(
            [self.truth.rewards(text, drawn.responses[a]) for text, a in zip(texts, asks, strict=True)]
        )

    def calibrated_rewards(self, drawn: Drawn, asks: Sequence[Ask]) -> np.ndarray:
        """Calibrated rewards, (N, K)."""
        return self.calibrated(
            [self.facts.prompts[index] for index, _ in asks], [drawn.responses[a] for a in asks]
        )

    def mean(self, values_N: np.ndarray, prompt_N: np.ndarray) -> Interval:
        """Mean with its interval over prompts."""
        return mean_interval(values_N, prompt_N, bootstrap=self.bootstrap)


def make_plan(
    facts: Facts,
    f_PK: np.ndarray,
    fits_P: np.ndarray,
    *,
    step: float,
    sweep_prompts: int,
    utility_prompts: int,
    seed: int,
) -> Plan:
    """The first prompts of each split, whose order is random, that leave room for a response (`fits_P`, (P,) bool).

    Without truth only the control split is swept.
    """
    rows = {split: np.flatnonzero((facts.split_P == split) & fits_P) for split in facts.held_out}
    control_split = "test_topic" if "test_topic" in rows else (facts.tests or facts.held_out)[0]
    if facts.true_PK is None:
        sweep = {control_split: rows[control_split][:sweep_prompts]}
        return Plan(simplex_grid(len(facts.names), step), sweep, {}, {}, control_split)
    arms = {
        RECOMMENDED: f_PK,
        UNIFORM: np.full_like(f_PK, 1 / f_PK.shape[1]),
        SHUFFLED: shuffle_within(f_PK, np.isin(facts.split_P, facts.tests), seed=seed),
        TRUE: facts.true_PK,
    }
    return Plan(
        grid_GK=simplex_grid(len(facts.names), step),
        sweep={split: prompts[:sweep_prompts] for split, prompts in rows.items()},
        utility={split: rows[split][: max(sweep_prompts, utility_prompts)] for split in facts.tests},
        arms=arms,
        control_split=control_split,
    )


def report_policies(
    policies: Mapping[str, Path], sampler: Sampler, plan: Plan, judge: PolicyJudge
) -> PolicyReport:
    """`policies`: folders by name, the last one is judged with every arm, the others with the recommended weights."""
    last = list(policies)[-1]
    controls: list[Control] = []
    points: list[SweepPoint] = []
    utilities: list[Utility] = []
    gains: dict[Arm, dict[int, float]] = {}
    constant, drawn_by = None, {}
    for name, folder in policies.items():
        sweep = plan.sweep if name == last else {plan.control_split: plan.sweep[plan.control_split]}
        arms = plan.arms if name == last else {key: plan.arms[key] for key in plan.arms if key == RECOMMENDED}
        asks = _sweep_asks(plan, sweep, judge) + _arm_asks(plan, arms, judge)
        drawn = drawn_by[name] = draw(sampler, folder, asks, judge.facts.prompts, judge.sampling)
        for split in sweep:
            found = judge_sweep(name, split, sweep[split], plan, drawn, judge)
            controls += found[0]
            points += found[1] if split == plan.control_split else []
        for source, weights_PK in arms.items():
            gains[Arm(policy=name, arm=source)] = arm_gains(plan, weights_PK, drawn, judge)
        if name == last and plan.utility:
            constant = best_constant_of_policy(plan, drawn, judge)
            gains[Arm(policy=name, arm=CONSTANT)] = constant_gains(plan, constant, drawn, judge)
    for arm, gain in gains.items():
        utilities += [
            Utility(arm=arm, split=split, utility=_mean_of(gain, rows, judge))
            for split, rows in _scopes(plan).items()
        ]
    return PolicyReport(
        control=tuple(controls),
        sweep=tuple(points),
        utilities=tuple(utilities),
        differences=tuple(compare(gains, plan, judge, last=last)),
        constant=None if constant is None else dict(zip(judge.facts.names, constant.tolist(), strict=True)),
        responses=sum(len(drawn.responses) for drawn in drawn_by.values()),
        unfinished=sum(drawn.unfinished for drawn in drawn_by.values()),
        sampling_seconds=sum(drawn.seconds for drawn in drawn_by.values()),
    )


def judge_sweep(
    name: str, split: str, prompts: np.ndarray, plan: Plan, drawn: Drawn, judge: PolicyJudge
) -> tuple[list[Control], list[SweepPoint]]:
    """Control and sweep points of one policy on one split, by true rewards where known and by calibrated ones.

    Calibrated rewards are computed on the control split only, since scoring takes as long as drawing.
    """
    asks = _grid_asks(plan, prompts, judge)
    names, shape = judge.facts.names, (len(prompts), *plan.grid_GK.shape)
    measures: dict[Measure, np.ndarray] = {}
    if judge.truth is not None:
        measures["true"] = judge.true_rewards(drawn, asks).reshape(shape)
    if split == plan.control_split:
        measures["calibrated"] = judge.calibrated_rewards(drawn, asks).reshape(shape)
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
    asks = _grid_asks(plan, prompts, judge)
    utility_N = _utilities(drawn, asks, judge)
    return np.asarray(plan.grid_GK[utility_N.reshape(len(prompts), -1).mean(axis=0).argmax()])


def constant_gains(plan: Plan, constant_K: np.ndarray, drawn: Drawn, judge: PolicyJudge) -> dict[int, float]:
    """Utility by prompt of the best constant, on the test prompts that answered for the whole grid."""
    prompts = np.concatenate([plan.sweep[split] for split in plan.utility])
    asks = [ask(int(index), constant_K, judge.sampling.context_format) for index in prompts]
    return dict(zip(prompts.tolist(), _utilities(drawn, asks, judge).tolist(), strict=True))


def arm_gains(plan: Plan, weights_PK: np.ndarray, drawn: Drawn, judge: PolicyJudge) -> dict[int, float]:
    """Utility by prompt where each prompt is asked with its own weights."""
    prompts = np.concatenate(list(plan.utility.values()))
    asks = [ask(int(index), weights_PK[index], judge.sampling.context_format) for index in prompts]
    return dict(zip(prompts.tolist(), _utilities(drawn, asks, judge).tolist(), strict=True))


def compare(
    gains: Mapping[Arm, Mapping[int, float]], plan: Plan, judge: PolicyJudge, *, last: str
) -> list[Difference]:
    """Paired differences, on the prompts that both sides answered."""
    if not plan.utility:
        return []
    arms = {source: Arm(policy=last, arm=source) for source in (*plan.arms, CONSTANT)}
    sides = [(arms[RECOMMENDED], arms[other]) for other in (CONSTANT, UNIFORM, SHUFFLED, TRUE)]
    sides.append((arms[SHUFFLED], arms[CONSTANT]))
    if last != OFFLINE:
        sides.append((arms[RECOMMENDED], Arm(policy=OFFLINE, arm=RECOMMENDED)))
    differences = []
    for first, second in sides:
        both = {
            index: gains[first][index] - gains[second][index]
            for index in gains[first]
            if index in gains[second]
        }
        differences += [
            Difference(first=first, second=second, split=split, difference=_mean_of(both, rows, judge))
            for split, rows in _scopes(plan).items()
        ]
    return differences


def _utilities(drawn: Drawn, asks: Sequence[Ask], judge: PolicyJudge) -> np.ndarray:
    """w°(x).r(x, y), (N,)."""
    assert judge.facts.true_PK is not None
    true_NK = judge.facts.true_PK[[index for index, _ in asks]]
    return np.asarray((true_NK * judge.true_rewards(drawn, asks)).sum(axis=1))


def _mean_of(gain: Mapping[int, float], rows: np.ndarray, judge: PolicyJudge) -> Interval:
    used = np.array([index for index in rows.tolist() if index in gain])
    return judge.mean(np.array([gain[index] for index in used.tolist()]), used)


def _scopes(plan: Plan) -> dict[str, np.ndarray]:
    """Every test split, and all of them together."""
    return {**plan.utility, ALL_TESTS: np.concatenate(list(plan.utility.values()))} if plan.utility else {}


def _grid_asks(plan: Plan, prompts: np.ndarray, judge: PolicyJudge) -> list[Ask]:
    """Prompt by prompt, all points of the grid."""
    return [
        ask(int(index), weights_K, judge.sampling.context_format)
        for index in prompts
        for weights_K in plan.grid_GK
    ]


def _sweep_asks(plan: Plan, sweep: Mapping[str, np.ndarray], judge: PolicyJudge) -> list[Ask]:
    return [key for prompts in sweep.values() for key in _grid_asks(plan, prompts, judge)]


def _arm_asks(plan: Plan, arms: Mapping[str, np.ndarray], judge: PolicyJudge) -> list[Ask]:
    return [
        ask(int(index), weights_PK[index], judge.sampling.context_format)
        for weights_PK in arms.values()
        for prompts in plan.utility.values()
        for index in prompts
    ]
