"""How well policies listen to weights, and whether weights that depend on the prompt pay (METHOD 9).

1. Control and Pareto sweep: all weights of a grid on the same prompts; Spearman between asked weight and mean
   reward.
2. Prompt-aware utility E[w°(x).r(x, y)] with true weights and true rewards, where the policy is asked for:
   the recommended f(x), the best constant, uniform, f of another prompt, and w° itself. The best constant is
   the grid point with the highest mean utility on validation prompts, drawn from the very policy that is
   judged.

The last policy is judged in full: `online` (the last online round of the served one), or `offline` (its round
0). The others are judged under recommended weights, and those that read no weights by what they answer
anyway.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from preforch_training.report.policies.judging import (
    PolicyJudge,
    arm_gains,
    best_constant_of_policy,
    judge_sweep,
)
from preforch_training.report.policies.plan import Contender, Plan, arm_of, asked_of, program_of
from preforch_training.report.policies.responses import Drawn, Query, draw, draw_best, draw_more
from preforch_training.report.policies.texts import measure_texts
from preforch_training.report.records import (
    Arm,
    Control,
    Difference,
    PolicyReport,
    SweepPoint,
    TextMeasures,
    Utility,
)
from preforch_training.sampling.vllm import Sampler
from preforch_training.statistics.bootstrap import Interval
from preforch_training.statistics.predictors import CONSTANT, RECOMMENDED, SHUFFLED, TRUE, UNIFORM


def report_policies(
    policies: Sequence[Contender], sampler: Sampler, plan: Plan, judge: PolicyJudge
) -> PolicyReport:
    """Ask every policy for its program in one call of the sampler, and judge what it answers. What the best
    constant is, only these answers say: it is asked in another call."""
    served = policies[-1]
    controls: list[Control] = []
    points: list[SweepPoint] = []
    gains: dict[Arm, dict[int, float]] = {}
    constant, drawn_by, texts = None, list[Drawn](), list[TextMeasures]()
    for policy in policies:
        program = program_of(plan, policy, in_full=policy is served)
        asked = asked_of(plan, program, judge.drawing.context_format)
        if not asked:
            continue
        drawn = answers_of(policy, asked, sampler, judge)
        for split, prompts in program.sweep.items():
            found = judge_sweep(policy.name, split, prompts, plan, drawn, judge)
            controls += found[0]
            points += found[1] if split == plan.control_split else []
        for source, weights_PK in program.arms.items():
            gains[Arm(policy=policy.name, arm=source)] = arm_gains(plan, weights_PK, drawn, judge)
        if program.is_whole:
            constant = best_constant_of_policy(plan, drawn, judge)
            weights_PK = np.tile(constant, (len(judge.facts.prompts), 1))
            asked = arm_of(plan, weights_PK, judge.drawing.context_format)
            drawn = draw_more(sampler, policy.folder, asked, judge.facts.prompts, judge.drawing, drawn)
            gains[Arm(policy=policy.name, arm=CONSTANT)] = arm_gains(plan, weights_PK, drawn, judge)
        own_PK = program.arms.get(policy.own_arm)
        if own_PK is not None:
            own = arm_of(plan, own_PK, judge.drawing.context_format)
            texts.append(measure_texts(policy, [drawn.responses[query] for query in own]))
        drawn_by.append(drawn)
    return PolicyReport(
        served=served.name,
        fixed=tuple(policy.name for policy in policies if not policy.reads_weights),
        control=tuple(controls),
        sweep=tuple(points),
        utilities=tuple(
            Utility(arm=arm, split=split, utility=_mean_of(gain, rows, judge))
            for arm, gain in gains.items()
            for split, rows in plan.scopes.items()
        ),
        differences=tuple(compare(gains, plan, judge, policies)),
        texts=tuple(texts),
        constant=None if constant is None else dict(zip(judge.facts.names, constant.tolist(), strict=True)),
        responses=sum(len(drawn.responses) for drawn in drawn_by),
        unfinished=sum(drawn.unfinished for drawn in drawn_by),
        sampling_seconds=sum(drawn.seconds for drawn in drawn_by),
    )


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
    gains: Mapping[Arm, Mapping[int, float]], plan: Plan, judge: PolicyJudge, policies: Sequence[Contender]
) -> list[Difference]:
    """Paired differences, on the prompts that both sides answered: between the arms of the last policy, and
    between it and every other one."""
    *others, served = policies
    sides = []
    if served.reads_weights:
        arms = {source: Arm(policy=served.name, arm=source) for source in (*plan.arms, CONSTANT)}
        pairs = [(RECOMMENDED, other) for other in (CONSTANT, UNIFORM, SHUFFLED, TRUE)]
        sides = [(arms[first], arms[second]) for first, second in [*pairs, (SHUFFLED, CONSTANT)] if plan.arms]
    own = Arm(policy=served.name, arm=served.own_arm)
    sides += [(own, Arm(policy=other.name, arm=other.own_arm)) for other in others]
    differences = []
    for first, second in sides if plan.utility else ():
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
