"""Reward kind `pair_head`: a head on frozen vectors (`preforch_models.reward_model`; paper, Eq. 2).

In:  pairs of one objective; frozen vectors of prompts, chosen and rejected responses.
Out: the head (an MLP, or linear: `linear`) and its loss curve; raw rewards of any responses.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from preforch_models.reward_model import PairHead, PairHeadConfig
from torch import nn
from torch.nn import functional
from tqdm import trange

from preforch_training.embeddings.vectors import EncoderSettings, TextVectors
from preforch_training.records import Prompt
from preforch_training.reward.config import PairHeadReward
from preforch_training.reward.fit_task import FitTask
from preforch_training.reward.kinds.linear import fit_linear_reward
from preforch_training.tuning.hf_trainer import METRICS_FILE
from preforch_training.tuning.resident import loaded

SCORED_AT_ONCE = 2048
"""Responses."""


def fit_pair_head(
    config: PairHeadReward,
    x_ND: torch.Tensor,
    chosen_ND: torch.Tensor,
    rejected_ND: torch.Tensor,
    group_N: np.ndarray,
    *,
    seed: int,
    label: str,
) -> tuple[PairHead, list[dict[str, float]]]:
    """Head and loss curve from the vectors of N pairs; `group_N`: their prompts. A linear head needs no
    seed."""
    if config.hidden:
        return fit_units(config, x_ND, chosen_ND, rejected_ND, seed=seed, label=label)
    model = new_head(config, size=x_ND.shape[1])
    assert isinstance(model.layers, nn.Linear)
    with torch.no_grad():
        sides = [model.features(x_ND, y_ND) for y_ND in (chosen_ND, rejected_ND)]
        weight_F, bias = fit_linear_reward(sides[0], sides[1], group_N, penalties=config.penalties)
        model.layers.weight.copy_(weight_F[None])
        model.layers.bias.copy_(bias[None])
        loss = -functional.logsigmoid((sides[0] - sides[1]) @ weight_F).mean().item()
    return model.eval(), [{"step": 1.0, "loss": loss}]


def new_head(config: PairHeadReward, *, size: int) -> PairHead:
    """An untrained head for vectors of `size` numbers."""
    return PairHead(
        PairHeadConfig(
            encoder_path=config.encoder,
            size=size,
            hidden=config.hidden,
            dropout=config.dropout,
            pooling=config.pooling,
            layers=config.layers,
            max_tokens=config.max_tokens,
        )
    )


def fit_units(
    config: PairHeadReward,
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
        model = new_head(config, size=x_ND.shape[1])
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        steps = config.epochs * -(-len(x_ND) // config.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
        curve = []
        for epoch in trange(config.epochs, desc=f"reward {label}", unit="epoch", leave=False):
            losses = []
            for rows in torch.split(torch.randperm(len(x_ND), generator=generator), config.batch_size):
                plus_B, minus_B = model(x_ND[rows], chosen_ND[rows]), model(x_ND[rows], rejected_ND[rows])
                loss = -functional.logsigmoid(plus_B - minus_B).mean()
                loss = loss + config.center_coefficient * (plus_B + minus_B).pow(2).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
            curve.append({"step": float(epoch + 1), "loss": float(np.mean(losses))})
            if not np.isfinite(curve[-1]["loss"]):
                raise ValueError(f"reward {label}: loss is {curve[-1]['loss']} after epoch {epoch + 1}")
    return model.eval(), curve


def prepare(config: PairHeadReward, cache: Path, texts: Iterable[str]) -> None:
    """Encode every text of a run once."""
    for _ in TextVectors(encoder_settings(config), cache).store(texts):
        pass


def fit(config: PairHeadReward, task: FitTask) -> None:
    """Fit a head on the vectors of the task's pairs and save it with its loss curve."""
    vectors = TextVectors(encoder_settings(config), task.cache)
    x_ND, chosen_ND, rejected_ND = (
        torch.from_numpy(vectors(texts))
        for texts in (
            [task.prompts[pair.prompt_id].text for pair in task.pairs],
            [pair.chosen for pair in task.pairs],
            [pair.rejected for pair in task.pairs],
        )
    )
    group_N = np.array([pair.prompt_id for pair in task.pairs])
    model, curve = fit_pair_head(
        config, x_ND, chosen_ND, rejected_ND, group_N, seed=task.seed, label=task.label
    )
    task.target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(task.target)
    lines = [json.dumps(entry) + "\n" for entry in curve]
    (task.target / METRICS_FILE).write_text("".join(lines), encoding="utf-8")


def score(
    config: PairHeadReward, folder: Path, cache: Path, prompts: Sequence[Prompt], responses: Sequence[str]
) -> np.ndarray:
    """Rewards by the saved head, (N,)."""
    texts = [prompt.text for prompt in prompts]
    # In one go, so that the encoder is loaded once; afterwards all vectors are there.
    prepare(config, cache, [*texts, *responses])
    vectors = TextVectors(encoder_settings(config), cache)
    model = loaded(folder, lambda: PairHead.from_pretrained(folder).eval())
    rewards_N = np.zeros(len(texts))
    with torch.inference_mode():
        for start in range(0, len(texts), SCORED_AT_ONCE):
            part = slice(start, start + SCORED_AT_ONCE)
            x_BD, y_BD = (torch.from_numpy(vectors(side[part])) for side in (texts, responses))
            rewards_N[part] = model(x_BD, y_BD).double().numpy()
    return rewards_N


def encoder_settings(config: PairHeadReward) -> EncoderSettings:
    """The frozen encoder of a pair head."""
    return EncoderSettings(
        name=config.encoder, pooling=config.pooling, max_tokens=config.max_tokens, layers=config.layers
    )


CrossFit = Callable[[np.ndarray, int], Callable[[np.ndarray], np.ndarray]]
"""(pairs of rows (M, 2), seed) -> (rows (R,) -> rewards (R,))."""


def cross_fit(
    config: PairHeadReward, cache: Path, prompts: Sequence[str], responses: Sequence[str]
) -> CrossFit:
    """Heads fitted in memory. Row i is `responses[i]` to the prompt `prompts[i]`."""
    vectors = TextVectors(encoder_settings(config), cache)
    both = vectors([*prompts, *responses])
    prompt_U = np.unique(prompts, return_inverse=True)[1]
    x_UD, y_UD = (torch.from_numpy(part) for part in (both[: len(prompts)], both[len(prompts) :]))

    def fit_pairs(pairs_M2: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        chosen_M, rejected_M = pairs_M2.T
        group_M = prompt_U[chosen_M]
        model, _ = fit_pair_head(
            config, x_UD[chosen_M], y_UD[chosen_M], y_UD[rejected_M], group_M, seed=seed, label="fold"
        )

        def score_rows(rows_R: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return np.asarray(model(x_UD[rows_R], y_UD[rows_R]).double().numpy())

        return score_rows

    return fit_pairs
