"""A linear Bradley-Terry head on frozen vectors, trained to convergence by L-BFGS (METHOD 1; paper, Eq. 2).

In:  features of chosen and rejected responses (N, F) and a group (prompt) for each pair.
Out: weight (F,) and bias of r = weight.features + bias. The objective is convex, so there is no seed and no
     step count.

The features are standardised over all responses and the result is folded back. The L2 penalty is the one with
the least loss on a fifth of the groups that the other fits leave out; the bias makes the mean reward zero.

scikit-learn's LogisticRegression (no intercept, C = 1 / (penalty N), every second pair turned round, tol
1e-5) has the same minimum, chooses the same penalty and takes as long. It is not used: in single precision
both stop up to 2e-3 from the exact rewards (of deviation 3), so that runs would change by as much, and a
label for every pair and a start set by hand are not simpler than what is written here.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn import functional

HELD_OUT_GROUPS = 5


def fit_linear_reward(
    chosen_NF: torch.Tensor, rejected_NF: torch.Tensor, group_N: np.ndarray, *, penalties: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (F,) and bias (). Raises ValueError with fewer than two groups."""
    order = np.unique(group_N, return_inverse=True)[1]
    if order.max() < 1:
        raise ValueError("a linear reward needs pairs of at least 2 prompts: one chooses the penalty")
    both_MF = torch.cat([chosen_NF, rejected_NF])
    deviation_F = both_MF.std(dim=0)
    # A feature that never varies says nothing.
    scale_F = torch.where(deviation_F > 1e-6, 1 / deviation_F, 0.0)
    margin_NF = (chosen_NF - rejected_NF) * scale_F
    penalty = penalties[0]
    if len(penalties) > 1:
        held_out_N = torch.from_numpy(order % HELD_OUT_GROUPS == 0)
        penalty = best_penalty(margin_NF[~held_out_N], margin_NF[held_out_N], penalties)
    weight_F = fit_margins(margin_NF, penalty, start=None) * scale_F
    return weight_F, -(both_MF @ weight_F).mean()


def best_penalty(fit_NF: torch.Tensor, held_out_MF: torch.Tensor, penalties: Sequence[float]) -> float:
    """The penalty whose fit has the least loss on held-out margins;
    each fit starts where the larger one ended."""
    weight_F, losses = None, {}
    for penalty in sorted(set(penalties), reverse=True):
        weight_F = fit_margins(fit_NF, penalty, start=weight_F)
        losses[penalty] = float(-functional.logsigmoid(held_out_MF @ weight_F).mean())
    return min(losses, key=lambda penalty: losses[penalty])


def fit_margins(margin_NF: torch.Tensor, penalty: float, *, start: torch.Tensor | None) -> torch.Tensor:
    """argmin over w of mean -log sigma(margins.w) + penalty |w|^2 / 2, (F,)."""

    def value_and_slope(point: np.ndarray) -> tuple[float, np.ndarray]:
        weight_F = torch.from_numpy(point).to(margin_NF.dtype)
        gain_N = margin_NF @ weight_F
        slope_F = margin_NF.T @ (-torch.sigmoid(-gain_N) / len(gain_N)) + penalty * weight_F
        value = -functional.logsigmoid(gain_N.double()).mean() + penalty * weight_F.double().pow(2).sum() / 2
        return float(value), slope_F.double().numpy()

    first = np.zeros(margin_NF.shape[1]) if start is None else start.double().numpy()
    # Single precision of the margins limits how far down the gradient can go.
    options = {"maxiter": 500, "gtol": 1e-5, "ftol": 1e-9}
    found = minimize(value_and_slope, first, jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x).to(margin_NF.dtype)
