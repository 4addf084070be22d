"""Whose weights a policy's prompts are asked with, and its rewards weighed by (METHOD 5 and 6)."""

from collections.abc import Mapping, Sequence

import numpy as np

from preforch_training.orchestrator.artifact import read_orchestrator_info
from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.policy.settings.rl import WeightSource
from preforch_training.policy.settings.wic import OnlineWeights
from preforch_training.records import Prompt
from preforch_training.run import Run


def prompt_weights(
    run: Run,
    source: WeightSource | OnlineWeights | Mapping[str, float],
    prompts: Sequence[Prompt],
    *,
    seed: int,
) -> np.ndarray:
    """Weights of prompts, (N, K), the same wherever a prompt occurs. `context` has those of f, and so has
    `random`, whose random ones take their place; `overall` has the one weight of `run.overall`. `seed`: of
    shuffled ones."""
    names = run.names
    if isinstance(source, Mapping):
        return np.tile(_row(source, names), (len(prompts), 1))
    if source in ("uniform", "overall"):
        return np.full((len(prompts), len(names)), 1 / len(names))
    if source == "constant":
        fallback = read_orchestrator_info(run.orchestrator).fallback
        return np.tile(_row(fallback, names), (len(prompts), 1))
    distinct = {prompt.id: prompt.text for prompt in prompts}
    predicted_UK = predict_weights(run.orchestrator, list(distinct.values()))
    if source == "shuffled":
        predicted_UK = np.random.default_rng(seed).permutation(predicted_UK)
    by_id = dict(zip(distinct, predicted_UK, strict=True))
    return np.array([by_id[prompt.id] for prompt in prompts])


def with_random(weights_NK: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights with some from Dirichlet(1) in place of an exact share of them; of which, (N,) bool."""
    rng = np.random.default_rng(seed)
    random_N = np.zeros(len(weights_NK), dtype=bool)
    random_N[rng.permutation(len(weights_NK))[: round(share * len(weights_NK))]] = True
    drawn_NK = rng.dirichlet(np.ones(weights_NK.shape[1]), size=len(weights_NK))
    return np.where(random_N[:, None], drawn_NK, weights_NK), random_N


def _row(weights: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    return np.array([weights.get(name, 0.0) for name in names])


def distance_from_uniform(weights_NK: np.ndarray) -> float:
    """Mean total variation from equal weights, in [0, 1 - 1/K]."""
    return float(np.abs(weights_NK - 1 / weights_NK.shape[1]).sum(axis=1).mean() / 2)
