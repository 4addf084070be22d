"""What an online round samples and what it keeps (paper, Eq. 11).

In:  prompts with f(x), generations of the current policy with their calibrated rewards.
Out: `Sample` records that say what was kept, and token rows of those.

Departures from the paper:
1. `best_by_weights` [ours]: of n samples the best under the asked weights is kept, where it beats what is
   known.
2. A share of the prompts gets random weights [ours], otherwise weights that users choose are never trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from preforch_models.context import ContextFormat
from preforch_models.weights import Weights

from preforch_training.policy.config import Keep
from preforch_training.policy.fine_tuning import TokenRow
from preforch_training.policy.known_responses import Known, any_above, on_grid
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt, Sample
from preforch_training.sampling.vllm import Generation

Origin = Literal["orchestrator", "dirichlet"]


@dataclass(frozen=True)
class WeightedPrompt:
    """A prompt and the weights, on the grid, that a response is sampled under."""

    prompt: Prompt
    weights: Weights
    origin: Origin


def draw_weights(
    prompts: Sequence[Prompt],
    predicted_NK: np.ndarray,
    context_format: ContextFormat,
    *,
    random_share: float,
    seed: int,
) -> list[WeightedPrompt]:
    """Each prompt with f(x), or for a share of them with weights from Dirichlet(1)."""
    rng = np.random.default_rng(seed)
    is_random_N = np.zeros(len(prompts), dtype=bool)
    is_random_N[rng.permutation(len(prompts))[: round(random_share * len(prompts))]] = True
    drawn_NK = rng.dirichlet(np.ones(len(context_format.objectives)), size=len(prompts))
    return [
        WeightedPrompt(
            prompt,
            on_grid(drawn if is_random else predicted, context_format),
            "dirichlet" if is_random else "orchestrator",
        )
        for prompt, predicted, drawn, is_random in zip(
            prompts, predicted_NK, drawn_NK, is_random_N, strict=True
        )
    ]


def judge(
    asks: Sequence[WeightedPrompt],
    generations: Sequence[Sequence[Generation]],
    rewards_NK: np.ndarray,
    known: Known,
    *,
    keep: Keep,
    quantile: float,
) -> list[Sample]:
    """Samples in order, with `kept`; an unfinished one never is. `rewards_NK`: calibrated, by generation."""
    passes_N = any_above(rewards_NK, known, quantile=quantile) if keep == "any_above_quantile" else None
    by_prompt = _rows_by_prompt(known)
    samples: list[Sample] = []
    for asked, group in zip(asks, generations, strict=True):
        start = len(samples)
        group_NK = rewards_NK[start : start + len(group)]
        finished_N = np.array([generation.finished for generation in group])
        if passes_N is not None:
            kept_N = passes_N[start : start + len(group)] & finished_N
        else:
            kept_N = _best(
                asked, group_NK, finished_N, known, by_prompt.get(asked.prompt.id, []), quantile=quantile
            )
        samples.extend(
            Sample(
                prompt_id=asked.prompt.id,
                weights=asked.weights,
                response=generation.text,
                token_ids=generation.token_ids,
                rewards=dict(zip(asked.weights, rewards_K.tolist(), strict=True)),
                kept=bool(kept),
                origin=asked.origin,
            )
            for generation, rewards_K, kept in zip(group, group_NK, kept_N, strict=True)
        )
    return samples


def _rows_by_prompt(known: Known) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for i, prompt_id in enumerate(known.prompt_ids):
        rows.setdefault(prompt_id, []).append(i)
    return rows


def _best(
    asked: WeightedPrompt,
    group_NK: np.ndarray,
    finished_N: np.ndarray,
    known: Known,
    mine: list[int],
    *,
    quantile: float,
) -> np.ndarray:
    """The best finished one under the asked weights, if above the prompt's known responses or the global
    quantile."""
    weights_K = np.array(list(asked.weights.values()))
    utility_N = np.where(finished_N, group_NK @ weights_K, -np.inf)
    known_N = known.rewards_NK @ weights_K
    threshold = float(np.quantile(known_N, quantile))
    if mine:
        threshold = min(threshold, float(known_N[mine].max()))
    best = int(utility_N.argmax())
    kept_N = np.zeros(len(group_NK), dtype=bool)
    kept_N[best] = utility_N[best] > threshold
    return kept_N


def sample_rows(
    samples: Sequence[Sample], prompts: Mapping[str, Prompt], reader: PolicyTokenizer
) -> list[TokenRow]:
    """Rows (x, w, y) of the kept samples, in the sampler's own tokens."""
    return [
        TokenRow(tuple(reader.prompt_ids(prompts[s.prompt_id].messages, s.weights)), s.token_ids)
        for s in samples
        if s.kept
    ]


def sample_metrics(samples: Sequence[Sample], *, per_prompt: int) -> dict[str, float]:
    """Mean utility under the asked weights: of all samples, of each prompt's best, of the kept; and mean
    rewards."""
    utility_N = np.array([sum(s.weights[k] * s.rewards[k] for k in s.weights) for s in samples])
    kept_N = np.array([s.kept for s in samples])
    rewards = {
        f"reward.{name}": float(np.mean([s.rewards[name] for s in samples])) for name in samples[0].rewards
    }
    return {
        "utility": float(utility_N.mean()),
        "utility_best": float(utility_N.reshape(-1, per_prompt).max(axis=1).mean()),
        "utility_kept": float(utility_N[kept_N].mean()) if kept_N.any() else 0.0,
        "kept_share": float(kept_N.mean()),
        **rewards,
    }
