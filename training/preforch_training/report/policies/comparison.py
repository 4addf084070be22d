"""How well policies listen to weights, and whether weights that depend on the prompt pay (METHOD 9).

1. Control and Pareto sweep: all weights of a grid on the same prompts; rank correlations of asked weight and
   mean reward.
2. Prompt-aware utility E[w°(x).r(x, y)] with true weights and true rewards, where the policy is asked for:
   the recommended f(x), the best constant, uniform, f of another prompt, and w° itself. The best constant is
   the grid point with the highest mean utility on validation prompts, drawn from the very policy that is
   judged.
3. Fronts of all policies on one split, rewards where all are asked with equal weights, learning curves.

Policies that read no weights are judged by what they answer anyway. The last one is what is served: `online`
(the last online round of its policy), or `offline` (its round 0); it alone is swept on every split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from preforch_training.report.policies.convergence import curve_of
from preforch_training.report.policies.fronts import fronts_of
from preforch_training.report.policies.judging import (
    PolicyJudge,
    Sweep,
    arm_gains,
    best_constant_of_policy,
    controls_of,
    equal_weights,
    points_of,
    sweeps_of,
)
from preforch_training.report.policies.plan import (
    Contender,
    Plan,
    Program,
    arm_of,
    asked_of,
    grid_of,
    program_of,
)
from preforch_training.report.policies.records import (
    Arm,
    Control,
    CurvePoint,
    Difference,
    EqualWeights,
    Measure,
    PolicyReport,
    SweepPoint,
    TextMeasures,
    Utility,
)
from preforch_training.report.policies.responses import Drawn, Query, draw, draw_best
from preforch_training.report.policies.texts import measure_texts
from preforch_training.sampling.vllm import Sampler
from preforch_training.statistics.bootstrap import Interval
from preforch_training.statistics.predictors import CONSTANT, RECOMMENDED, SHUFFLED, TRUE, UNIFORM

MEASURES: tuple[Measure, ...] = ("true", "calibrated")


@dataclass(frozen=True)
class Judged:
    """What was found of one policy. `gains`: true utility by prompt, by arm."""

    drawn: Drawn
    sweeps: list[Sweep]
    control: list[Control]
    points: list[SweepPoint]
    gains: dict[str, dict[int, float]]
    equal: list[EqualWeights]
    texts: TextMeasures
    curve: list[CurvePoint]
    constant: np.ndarray | None


def report_policies(
    policies: Sequence[Contender],
    sampler: Sampler,
    plan: Plan,
    judge: PolicyJudge,
    *,
    pairs: Sequence[tuple[str, str]] = (),
    reference: str | None = None,
) -> PolicyReport:
    """Judge every policy by what it answers. `pairs`: names of policies that are compared besides the served
    one with each other one."""
    served = policies[-1]
    judged = {
        policy.name: judge_policy(policy, sampler, plan, judge, served=policy is served)
        for policy in policies
    }
    found = list(judged.values())
    gains = {
        Arm(policy=name, arm=arm): gain for name, one in judged.items() for arm, gain in one.gains.items()
    }
    sweeps = [sweep for one in found for sweep in one.sweeps if sweep.split == plan.control_split]
    by_measure = [[sweep for sweep in sweeps if sweep.measure == measure] for measure in MEASURES]
    constant = judged[served.name].constant
    return PolicyReport(
        served=served.name,
        fixed=tuple(policy.name for policy in policies if not policy.reads_weights),
        control=tuple(entry for one in found for entry in one.control),
        sweep=tuple(point for one in found for point in one.points),
        utilities=tuple(
            Utility(arm=arm, split=split, utility=_mean_of(gain, rows, judge))
            for arm, gain in gains.items()
            for split, rows in plan.scopes.items()
        ),
        differences=tuple(compare(gains, plan, judge, policies, pairs)) if judge.truth else (),
        texts=tuple(one.texts for one in found),
        scales=tuple(judge.scales.values()),
        fronts=tuple(
            front
            for alike in by_measure
            for front in fronts_of(alike, judge, seed=judge.drawing.seed_of("dirichlet"))
        ),
        equal_weights=tuple(entry for one in found for entry in one.equal),
        curves=tuple(point for one in found for point in one.curve),
        reference=reference,
        constant=None if constant is None else dict(zip(judge.facts.names, constant.tolist(), strict=True)),
        responses=sum(len(one.drawn.responses) for one in found),
        unfinished=sum(one.drawn.unfinished for one in found),
        sampling_seconds=sum(one.drawn.seconds for one in found),
    )


def judge_policy(
    policy: Contender, sampler: Sampler, plan: Plan, judge: PolicyJudge, *, served: bool
) -> Judged:
    """Ask a policy for its program in one call of the sampler, and judge what it answers. What the best
    constant is, only these answers say: it is asked in another call."""
    format_, prompts = judge.drawing.context_format, judge.facts.prompts
    program = program_of(plan, policy, served=served)
    drawn = answers_of(policy, asked_of(plan, program, format_), sampler, judge)
    sweeps, control, points = judge_sweeps(policy, program, plan, drawn, judge)
    arms, constant = dict(program.arms), None
    if program.finds_constant:
        constant = best_constant_of_policy(plan, drawn, judge)
        arms[CONSTANT] = np.tile(constant, (len(prompts), 1))
        missing = [q for q in arm_of(plan, arms[CONSTANT], format_) if q not in drawn.responses]
        if missing:
            drawn = drawn.and_more(answers_of(policy, missing, sampler, judge))
    own = arm_of(plan, plan.own_weights(policy), format_)
    kl_N = judge.divergence(policy, drawn, own)
    kl = None if kl_N is None else judge.mean(kl_N, np.array([index for index, _ in own]))
    return Judged(
        drawn=drawn,
        sweeps=sweeps,
        control=control,
        points=points,
        gains={
            source: arm_gains(plan, weights_PK, drawn, judge)
            for source, weights_PK in (arms if judge.truth else {}).items()
        },
        equal=equal_weights(policy, plan, drawn, judge),
        texts=measure_texts(policy, drawn.texts(own), kl=kl),
        curve=list(curve_of(policy, sampler, plan, judge)),
        constant=constant,
    )


def judge_sweeps(
    policy: Contender, program: Program, plan: Plan, drawn: Drawn, judge: PolicyJudge
) -> tuple[list[Sweep], list[Control], list[SweepPoint]]:
    """All sweeps of a policy, its control, and the points of the control split. One that reads no weights is
    one point of every front, and has neither."""
    split = plan.control_split
    if not policy.reads_weights:
        prompts = plan.sweep[split]
        return sweeps_of(policy, split, prompts, plan, drawn, judge), [], []
    sweeps, control, points = list[Sweep](), list[Control](), list[SweepPoint]()
    for where, prompts in program.sweep.items():
        found = sweeps_of(policy, where, prompts, plan, drawn, judge)
        sweeps += found
        control += [entry for sweep in found for entry in controls_of(sweep, plan, judge)]
        if where != split:
            continue
        asked = grid_of(plan, prompts, judge.drawing.context_format)
        kl_N = judge.divergence(policy, drawn, asked)
        kl_PG = None if kl_N is None else kl_N.reshape(len(prompts), -1)
        points += [p for sweep in found for p in points_of(policy, sweep, plan, drawn, kl_PG, judge)]
    return sweeps, control, points


def answers_of(policy: Contender, asked: Sequence[Query], sampler: Sampler, judge: PolicyJudge) -> Drawn:
    """What a policy answers, or the best of what it answers."""
    prompts, drawing = judge.facts.prompts, judge.drawing
    if policy.best_of > 1:
        return draw_best(
            sampler,
            policy.folder,
            asked,
            prompts,
            drawing,
            samples=policy.best_of,
            score=judge.calibrated,
        )
    return draw(sampler, policy.folder, asked, prompts, drawing)


def compare(
    gains: Mapping[Arm, Mapping[int, float]],
    plan: Plan,
    judge: PolicyJudge,
    policies: Sequence[Contender],
    pairs: Sequence[tuple[str, str]],
) -> list[Difference]:
    """Paired differences, on the prompts that both sides answered: between the arms of every policy that
    reads weights, between the last policy and every other one, and between those of `pairs`."""
    *others, served = policies
    between = [*((RECOMMENDED, other) for other in (CONSTANT, UNIFORM, SHUFFLED, TRUE)), (SHUFFLED, CONSTANT)]
    sides = [
        (Arm(policy=policy.name, arm=first), Arm(policy=policy.name, arm=second))
        for policy in policies
        if policy.reads_weights
        for first, second in between
    ]
    own = {policy.name: Arm(policy=policy.name, arm=policy.own_arm) for policy in policies}
    sides += [(own[served.name], own[other.name]) for other in others]
    sides += [(own[first], own[second]) for first, second in pairs]
    differences = []
    for first, second in sides:
        both = {
            index: gains[first][index] - gains[second][index]
            for index in gains[first]
            if index in gains[second]
        }
        differences += [
            Difference(first=first, second=second, split=split, difference=_mean_of(both, rows, judge))
            for split, rows in plan.scopes.items()
        ]
    return differences


def _mean_of(gain: Mapping[int, float], rows: np.ndarray, judge: PolicyJudge) -> Interval:
    used = np.array([index for index in rows.tolist() if index in gain])
    return judge.mean(np.array([gain[index] for index in used.tolist()]), used)
