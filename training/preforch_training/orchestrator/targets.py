"""What f is fitted to, from calibrated rewards (paper, Eq. 6 and 7), and the losses that fit it (Eq. 8).

Everything takes and gives arrays with the objectives in the last axis, in the order of the config.

| loss      | labels                     | per row, with f = softmax(logits)           | tau                |
|-----------|----------------------------|---------------------------------------------|--------------------|
| `reverse` | w* = softmax(values / tau) | KL(f || w*)                                 | sharpness of w*    |
| `forward` | w* = softmax(values / tau) | KL(w* || f)                                 | sharpness of w*    |
| `regress` | values                     | mean square of tau * logits - values        | sharpness of f     |
| `bt_gate` | margins r(y+) - r(y-)      | -log sigma(s f.margin) - entropy_prior H(f) | none; s is learned |

No loss changes when a number is added to all logits of a row, so logits and log weights serve alike.
`regress` takes its errors about their mean over the objectives for that: the mean reward of a prompt has no
say in its weights.

Departures from the paper:
1. Bradley-Terry rewards are only defined up to an offset per prompt, so `chosen_softmax` is not identified;
   `advantage_softmax` subtracts the mean over the other known responses, `margin_softmax` the rejected
   response.
2. `forward`, `regress` and `bt_gate` (after ArmoRM's gating; METHOD 3 and 4).
"""

import numpy as np
import torch
from scipy import special
from torch.nn import functional

from preforch_training.orchestrator.config import Loss, Target
from preforch_training.scores.pairs import PairRewards
from preforch_training.statistics.lbfgs import minimise

LOG_SCALE_LIMIT = 5.0
"""|log s| stays within it: pairs that f orders without an error would send s to infinity.

At the limit the size of the weights means little, because nearly equal ones do as well.
"""


def softmax(values_NK: np.ndarray, tau: float) -> np.ndarray:
    """softmax(values / tau) over the last axis."""
    return np.asarray(special.softmax(values_NK / tau, axis=-1))


def target_values(
    chosen_NK: np.ndarray, rejected_NK: np.ndarray, others_NK: np.ndarray, *, target: Target
) -> np.ndarray:
    """What the softmax of Eq. 7 is taken of, (N, K). `others_NK` as in `PairRewards`."""
    if target == "chosen_softmax":
        return chosen_NK
    return np.asarray(chosen_NK - (others_NK if target == "advantage_softmax" else rejected_NK))


def target_weights(
    chosen_NK: np.ndarray, rejected_NK: np.ndarray, others_NK: np.ndarray, *, target: Target, tau: float
) -> np.ndarray:
    """w* of N pairs, (N, K)."""
    return softmax(target_values(chosen_NK, rejected_NK, others_NK, target=target), check_tau(tau))


def check_tau(tau: float) -> float:
    """`tau`, if it is a positive number."""
    if not 0 < tau < np.inf:
        raise ValueError(f"tau must be positive, got {tau}")
    return tau


def labels_for(pairs: PairRewards, *, target: Target, tau: float, loss: Loss) -> np.ndarray:
    """What a loss compares f with, (N, K): weights, values or margins (see the table above)."""
    check_tau(tau)
    if loss == "bt_gate":
        return np.asarray(pairs.chosen_NK - pairs.rejected_NK)
    values_NK = target_values(pairs.chosen_NK, pairs.rejected_NK, pairs.others_NK, target=target)
    return values_NK if loss == "regress" else softmax(values_NK, tau)


def divergence(log_f_BK: torch.Tensor, log_target_BK: torch.Tensor, *, loss: Loss) -> torch.Tensor:
    """Mean KL(f || w*) (reverse, the paper's) or KL(w* || f) (forward). `kl_div(a, b)` is KL(b || a)."""
    first, second = (log_target_BK, log_f_BK) if loss == "reverse" else (log_f_BK, log_target_BK)
    return functional.kl_div(first, second, log_target=True, reduction="batchmean")


def head_loss(
    logits_BK: torch.Tensor,
    labels_BK: torch.Tensor,
    *,
    loss: Loss,
    tau: float,
    log_scale: torch.Tensor | None = None,
    entropy_prior: float = 0.0,
) -> torch.Tensor:
    """Mean loss over rows. `log_scale`, log s or None for s = 1,
    and `entropy_prior` concern `bt_gate` only."""
    if loss == "regress":
        errors_BK = tau * logits_BK - labels_BK
        return (errors_BK - errors_BK.mean(dim=-1, keepdim=True)).pow(2).mean()
    log_f_BK = torch.log_softmax(logits_BK, dim=-1)
    if loss != "bt_gate":
        return divergence(log_f_BK, labels_BK.clamp(min=1e-9).log(), loss=loss)
    f_BK = log_f_BK.exp()
    gain_B = (f_BK * labels_BK).sum(dim=-1)
    scaled_B = gain_B if log_scale is None else log_scale.exp() * gain_B
    entropy_B = -(f_BK * log_f_BK).sum(dim=-1)
    return (-functional.logsigmoid(scaled_B) - entropy_prior * entropy_B).mean()


def best_constant(
    labels_NK: np.ndarray, *, loss: Loss, tau: float = 1.0, entropy_prior: float = 0.0
) -> np.ndarray:
    """The constant weights with the least mean loss, (K,).

    The normalised geometric mean of w* for reverse, the arithmetic one for forward, softmax(mean value / tau)
    for regress, the most likely ones (with the entropy prior) for bt_gate.
    """
    if loss == "forward":
        return np.asarray(labels_NK.mean(axis=0))
    if loss == "regress":
        return softmax(labels_NK.mean(axis=0), check_tau(tau))
    if loss == "bt_gate":
        return constant_gate(labels_NK, entropy_prior=entropy_prior)[0]
    powers_K = np.exp(np.log(np.maximum(labels_NK, 1e-12)).mean(axis=0))
    return np.asarray(powers_K / powers_K.sum())


def constant_gate(margin_NK: np.ndarray, *, entropy_prior: float = 0.0) -> tuple[np.ndarray, float]:
    """The best constant weights of `bt_gate`, (K,), and their log scale."""
    margins_NK = torch.from_numpy(np.asarray(margin_NK, dtype=np.float64))
    count = margins_NK.shape[1]

    def mean_loss(values: torch.Tensor) -> list[torch.Tensor]:
        loss = head_loss(
            values[:-1].expand_as(margins_NK),
            margins_NK,
            loss="bt_gate",
            tau=1.0,
            log_scale=values[-1],
            entropy_prior=entropy_prior,
        )
        return [loss]

    found = minimise(mean_loss, np.zeros(count + 1), limits=[None] * count + [LOG_SCALE_LIMIT])
    return softmax(found[:-1], 1.0), float(found[-1])
