"""Fits a Bradley-Terry head on frozen vectors (`preforch_models.reward_model.PairHead`; paper, Eq. 2).

In:  vectors of prompts, chosen and rejected responses. Out: the head and its loss curve.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from preforch_models.reward_model import PairHead, PairHeadConfig
from torch import nn
from torch.nn import functional
from tqdm import trange

from preforch_training.embeddings.vectors import TextVectors
from preforch_training.reward.linear import fit_linear_reward
from preforch_training.reward.scoring import PairHeadReward, encoder_settings


def fit_pair_head(
    settings: PairHeadReward,
    x_ND: torch.Tensor,
    chosen_ND: torch.Tensor,
    rejected_ND: torch.Tensor,
    group_N: np.ndarray,
    *,
    seed: int,
    label: str,
) -> tuple[PairHead, list[dict[str, float]]]:
    """Head and loss curve from the vectors of N pairs; `group_N`: their prompts. A linear head needs no seed."""
    if settings.hidden:
        return fit_units(settings, x_ND, chosen_ND, rejected_ND, seed=seed, label=label)
    model = new_head(settings, size=x_ND.shape[1])
    assert isinstance(model.layers, nn.Linear)
    with torch.no_grad():
        sides = [model.features(x_ND, y_ND) for y_ND in (chosen_ND, rejected_ND)]
        weight_F, bias = fit_linear_reward(sides[0], sides[1], group_N, penalties=settings.penalties)
        model.layers.weight.copy_(weight_F[None])
        model.layers.bias.copy_(bias[None])
        loss = -functional.logsigmoid((sides[0] - sides[1]) @ weight_F).mean().item()
    return model.eval(), [{"step": 1.0, "loss": loss}]


def new_head(settings: PairHeadReward, *, size: int) -> PairHead:
    """An untrained head for vectors of `size` numbers."""
    return PairHead(
        PairHeadConfig(
            encoder_path=settings.encoder,
            size=size,
            hidden=settings.hidden,
            dropout=settings.dropout,
            pooling=settings.pooling,
            layers=settings.layers,
            max_tokens=settings.max_tokens,
        )
    )


def fit_units(
    settings: PairHeadReward,
    x_ND: torch.Tensor,
    chosen_ND: torch.Tensor,
    rejected_ND: torch.Tensor,
    *,
    seed: int,
    label: str,
) -> tuple[PairHead, list[dict[str, float]]]:
    """Minimise -log sigma(r(x, y+) - r(x, y-)) + c (r+ + r-)^2 over an MLP; AdamW, cosine decay."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = new_head(settings, size=x_ND.shape[1])
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        steps = settings.epochs * -(-len(x_ND) // settings.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
        curve = []
        for epoch in trange(settings.epochs, desc=f"reward {label}", unit="epoch", leave=False):
            losses = []
            for rows in torch.split(torch.randperm(len(x_ND), generator=generator), settings.batch_size):
                plus_B, minus_B = model(x_ND[rows], chosen_ND[rows]), model(x_ND[rows], rejected_ND[rows])
                loss = -functional.logsigmoid(plus_B - minus_B).mean()
                loss = loss + settings.center_coefficient * (plus_B + minus_B).pow(2).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
            curve.append({"step": float(epoch + 1), "loss": float(np.mean(losses))})
            if not np.isfinite(curve[-1]["loss"]):
                raise ValueError(f"reward {label}: loss is {curve[-1]['loss']} after epoch {epoch + 1}")
    return model.eval(), curve


def pair_head_fit(
    settings: PairHeadReward, cache: Path, prompts: Sequence[str], responses: Sequence[str]
) -> Callable[[np.ndarray, int], Callable[[np.ndarray], np.ndarray]]:
    """Heads fitted in memory, for cross-fitting: (pairs of rows (M, 2), seed) -> rows (R,) -> rewards (R,).

    Row i is `responses[i]` to the prompt `prompts[i]`.
    """
    vectors = TextVectors(encoder_settings(settings), cache)
    both = vectors([*prompts, *responses])
    prompt_U = np.unique(prompts, return_inverse=True)[1]
    x_UD, y_UD = (torch.from_numpy(part) for part in (both[: len(prompts)], both[len(prompts) :]))

    def fit(pairs_M2: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        chosen_M, rejected_M = pairs_M2.T
        group_M = prompt_U[chosen_M]
        model, _ = fit_pair_head(
            settings, x_UD[chosen_M], y_UD[chosen_M], y_UD[rejected_M], group_M, seed=seed, label="fold"
        )

        def score_rows(rows_R: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return np.asarray(model(x_UD[rows_R], y_UD[rows_R]).double().numpy())

        return score_rows

    return fit
