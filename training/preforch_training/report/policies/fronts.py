"""How good the fronts of policies are, each set beside all of them together (METHOD 9).

In:  sweeps of the control split by one measure. Out: `Front`s with intervals over prompts.
"""

from collections.abc import Callable, Sequence

import numpy as np

from preforch_training.report.policies.judging import PolicyJudge, Sweep
from preforch_training.report.policies.records import Front, Measure, Scale
from preforch_training.statistics.bootstrap import Interval, interval_of
from preforch_training.statistics.fronts import additive_epsilon, dirichlet, expected_utility, hypervolume

DRAWS = 1000
"""Weights of the expected utility."""
LOW, HIGH = 0.05, 0.95
"""Quantiles of the training responses' rewards."""


def scale_of(measure: Measure, names: Sequence[str], rewards_NK: np.ndarray) -> Scale:
    """From rewards of training responses, so that no policy moves it. Where both quantiles are one value, the
    unit is that of the reward."""
    low_K, high_K = np.quantile(rewards_NK, [LOW, HIGH], axis=0)
    high_K = np.where(high_K > low_K, high_K, low_K + 1)
    return Scale(
        measure=measure,
        low=dict(zip(names, low_K.tolist(), strict=True)),
        high=dict(zip(names, high_K.tolist(), strict=True)),
    )


def fronts_of(sweeps: Sequence[Sweep], judge: PolicyJudge, *, seed: int) -> list[Front]:
    """Of policies that answered the same prompts, by one measure."""
    if not sweeps:
        return []
    scale = judge.scales[sweeps[0].measure]
    low_K, high_K = (np.array(list(corner.values())) for corner in (scale.low, scale.high))
    weights_DK = dirichlet(len(low_K), draws=DRAWS, seed=seed)

    def interval(i: int, of_points: Callable[[np.ndarray, np.ndarray], float]) -> Interval:
        """Of a number that the mean rewards of one policy, and of all together, decide."""

        def statistic(counts_BP: np.ndarray) -> np.ndarray:
            shares_BP = counts_BP / counts_BP.sum(axis=1, keepdims=True)
            means = [np.einsum("bp,pgk->bgk", shares_BP, sweep.rewards_PGK) for sweep in sweeps]
            all_BFK = np.concatenate(means, axis=1)
            return np.array([of_points(own, every) for own, every in zip(means[i], all_BFK, strict=True)])

        return interval_of(statistic, groups=len(sweeps[i].prompts), bootstrap=judge.bootstrap)

    return [
        Front(
            policy=sweep.policy,
            measure=sweep.measure,
            points=sweep.rewards_PGK.shape[1],
            hypervolume=interval(i, lambda own, _: hypervolume(own, low_K, high_K)),
            expected_utility=interval(i, lambda own, _: expected_utility(own, weights_DK)),
            epsilon=interval(i, additive_epsilon),
        )
        for i, sweep in enumerate(sweeps)
    ]
