"""Target weights w* from calibrated rewards (paper, Eq. 6 and 7), and the losses that fit f to them (Eq. 8).

Everything takes and gives arrays with the objectives in the last axis, in the order of the config.
Departures from the paper:
1. Bradley-Terry rewards are only defined up to an offset per prompt, so `chosen_softmax` is not identified;
   `advantage_softmax` subtracts the mean over the other known responses, `margin_softmax` the rejected response.
"""

from typing import Literal

import numpy as np
import torch
from torch.nn import functional

Target = Literal["chosen_softmax", "advantage_softmax", "margin_softmax"]
Loss = Literal["reverse", "forward"]


def softmax(values_NK: np.ndarray, tau: float) -> np.ndarray:
    """softmax(values / tau) over the last axis."""
    scaled_NK = values_NK / tau
    powers_NK = np.exp(scaled_NK - scaled_NK.max(axis=-1, keepdims=True))
    return np.asarray(powers_NK / powers_NK.sum(axis=-1, keepdims=True))


def target_weights(
    chosen_NK: np.ndarray, rejected_NK: np.ndarray, others_NK: np.ndarray, *, target: Target, tau: float
) -> np.ndarray:
    """w* of N pairs, (N, K). `others_NK`: mean reward of the prompt's known responses other than the chosen one."""
    if tau <= 0:
        raise ValueError(f"tau must be positive, got {tau}")
    if target == "chosen_softmax":
        return softmax(chosen_NK, tau)
    if target == "advantage_softmax":
        return softmax(chosen_NK - others_NK, tau)
    return softmax(chosen_NK - rejected_NK, tau)


def divergence(log_f_BK: torch.Tensor, log_target_BK: torch.Tensor, *, loss: Loss) -> torch.Tensor:
    """Mean KL(f || w*) (reverse, the paper's) or KL(w* || f) (forward). `kl_div(a, b)` is KL(b || a)."""
    first, second = (log_target_BK, log_f_BK) if loss == "reverse" else (log_f_BK, log_target_BK)
    return functional.kl_div(first, second, log_target=True, reduction="batchmean")


def best_constant(target_NK: np.ndarray, *, loss: Loss) -> np.ndarray:
    """The constant with the least mean loss, (K,): normalised geometric mean for reverse, arithmetic for forward."""
    if loss == "forward":
        return np.asarray(target_NK.mean(axis=0))
    powers_K = np.exp(np.log(np.maximum(target_NK, 1e-12)).mean(axis=0))
    return np.asarray(powers_K / powers_K.sum())
