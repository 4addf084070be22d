"""Bootstrap intervals over prompts: pairs and samples of one prompt are drawn together, since they are not
independent.

In:  a statistic that reads how often each group (prompt) was drawn.
Out: `Interval`, the statistic on the data as they are with the 2.5% and 97.5% quantiles over redraws.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from preforch_models.objectives import Record
from pydantic import FiniteFloat

Statistic = Callable[[np.ndarray], np.ndarray]
"""(B, G) numbers of times that each of G groups was drawn -> (B,) values."""

_CHUNK = 100


@dataclass(frozen=True)
class Bootstrap:
    """Size of a bootstrap, and the seed of its redraws:
    equal seeds redraw alike, so that intervals can be paired."""

    seed: int
    replicates: int


class Interval(Record):
    """A value with its 95% interval; `groups` prompts went into it."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    groups: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval_of(statistic: Statistic, *, groups: int, bootstrap: Bootstrap) -> Interval:
    """Redraw groups with replacement. Raises ValueError where there is no group."""
    if groups < 1:
        raise ValueError("an interval needs at least one prompt, got none")
    rng, replicates = np.random.default_rng(bootstrap.seed), bootstrap.replicates
    chances_G = np.full(groups, 1 / groups)
    values = [
        statistic(rng.multinomial(groups, chances_G, size=min(_CHUNK, replicates - start)))
        for start in range(0, replicates, _CHUNK)
    ]
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return Interval(
        value=float(statistic(np.ones((1, groups)))[0]), low=float(low), high=float(high), groups=groups
    )


def sums_by_group(values_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """Sum the rows of each group, (N,) or (N, K) -> (G,) or (G, K). Groups are numbered from 0."""
    sums = np.zeros((int(groups_N.max()) + 1, *values_N.shape[1:]))
    np.add.at(sums, groups_N, values_N)
    return sums


def mean_interval(values_N: np.ndarray, groups_N: np.ndarray, *, bootstrap: Bootstrap) -> Interval:
    """Mean over rows whose groups are any labels."""
    group_N = np.unique(groups_N, return_inverse=True)[1]
    sums_G, sizes_G = sums_by_group(values_N, group_N), sums_by_group(np.ones(len(group_N)), group_N)

    def mean(counts_BG: np.ndarray) -> np.ndarray:
        return np.asarray(counts_BG @ sums_G / (counts_BG @ sizes_G))

    return interval_of(mean, groups=len(sums_G), bootstrap=bootstrap)
