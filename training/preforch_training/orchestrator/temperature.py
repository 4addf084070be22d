"""tau of f, chosen by the likelihood of held-out preferences (METHOD 2). [ours]

In:  what `regress` predicts of held-out pairs' prompts, f(x) = softmax(values / tau), and the pairs' margins.
Out: the tau under which the labels are likeliest, log sigma(s f(x).(r(y+) - r(y-))), s > 0 learned with it.

How sharp weights should be is a property of the data: where preferences turn on the prompt they are sharp,
where every prompt wants everything they are nearly equal. Closeness to targets cannot say it, because the
targets are made with tau themselves.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from preforch_training.orchestrator.targets import softmax
from preforch_training.statistics.metrics import best_likelihood

FIT: Final = "fit"
"""The setting `tau = "fit"`."""
TAUS = np.geomspace(0.05, 5.0, 41)
"""What is tried: a ratio of 1.12 from one to the next, from nearly hard weights to nearly equal ones."""


@dataclass(frozen=True)
class FittedTau:
    """The likeliest tau, its scale s and mean log-likelihood."""

    tau: float
    scale: float
    log_likelihood: float


def fit_tau(values_NK: np.ndarray, margin_NK: np.ndarray) -> FittedTau:
    """The tau of `TAUS` under which the pairs are likeliest; the largest of those that tie. (N, K) both."""
    if not len(values_NK):
        raise ValueError('tau = "fit" needs validation pairs, and there are none')
    found = []
    for tau in TAUS[::-1]:
        likelihood, scale = best_likelihood((softmax(values_NK, float(tau)) * margin_NK).sum(axis=1))
        found.append(FittedTau(float(tau), scale, likelihood))
    return max(found, key=lambda fitted: fitted.log_likelihood)
