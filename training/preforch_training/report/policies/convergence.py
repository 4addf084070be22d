"""Learning curves on held-out prompts: rewards against samples and KL (METHOD 9; paper, Figure 3).

In:  a policy with its snapshots. Out: `CurvePoint`s, each over all test prompts, asked as the policy is
     compared with others.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from preforch_training.report.policies.judging import PolicyJudge, true_utilities
from preforch_training.report.policies.plan import Contender, Plan, arm_of
from preforch_training.report.policies.records import CurvePoint
from preforch_training.report.policies.responses import draw
from preforch_training.sampling.vllm import Sampler
from preforch_training.statistics.predictors import RECOMMENDED


def curve_of(policy: Contender, sampler: Sampler, plan: Plan, judge: PolicyJudge) -> Iterator[CurvePoint]:
    """A point a snapshot; none without any."""
    asked = arm_of(plan, plan.own_weights(policy), judge.drawing.context_format)
    prompt_N = np.array([index for index, _ in asked])
    for samples, folder in policy.snapshots.items():
        here = replace(policy, folder=folder)
        drawn = draw(sampler, folder, asked, judge.facts.prompts, judge.drawing)
        rewards_NK = judge.calibrated_rewards(drawn, asked)
        kl_N = judge.divergence(here, drawn, asked)
        known = judge.truth is not None
        yield CurvePoint(
            policy=policy.name,
            samples=samples,
            kl=None if kl_N is None else judge.mean(kl_N, prompt_N),
            rewards=judge.means(rewards_NK, prompt_N),
            learned=judge.mean((plan.arms[RECOMMENDED][prompt_N] * rewards_NK).sum(axis=1), prompt_N),
            utility=judge.mean(true_utilities(drawn, asked, judge), prompt_N) if known else None,
        )
