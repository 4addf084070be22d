"""Weights in context: which examples (x, w, y) the policy learns from, offline and in each online round.

In:  scored responses with their calibrated rewards, and samples of the current policy.
Out: examples as token rows; `Sample` records that say what was kept.

Source: paper, Eq. 7 (weights of known responses), Eq. 10 (offline), Eq. 11 (online); filters from RiC. Departures:
1. `chosen_and_filtered` [ours]: softmax weights carry no absolute quality, so a rejected response must be good by them.
2. `best_by_weights` [ours]: of n samples the best under the asked weights is kept, where it beats what is known.
3. A share of the online prompts gets random weights [ours], otherwise weights that users choose are never trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from preforch_models.calibration import Calibration
from preforch_models.context import ContextFormat
from preforch_models.weights import Weights, round_weights

from preforch_training.orchestrator.targets import softmax
from preforch_training.policy.base_model import PolicyTokenizer
from preforch_training.policy.fine_tuning import TokenRow
from preforch_training.records import Prompt, Sample, ScoredResponse
from preforch_training.sampling.vllm import Generation

OfflineResponses = Literal["chosen_and_filtered", "all"]
Keep = Literal["best_by_weights", "any_above_quantile"]
Origin = Literal["orchestrator", "dirichlet"]


@dataclass(frozen=True)
class Known:
    """The distinct scored responses of the training prompts: N of them, calibrated rewards and Eq. 7 weights (N, K)."""

    prompt_ids: tuple[str, ...]
    responses: tuple[str, ...]
    chosen_N: np.ndarray
    rewards_NK: np.ndarray
    weights_NK: np.ndarray


@dataclass(frozen=True)
class Ask:
    """A prompt and the weights, on the grid, that a response is sampled under."""

    prompt: Prompt
    weights: Weights
    origin: Origin


def known_responses(
    scores: Sequence[ScoredResponse], calibration: Calibration, names: Sequence[str], *, tau: float
) -> Known:
    """Training responses with weights softmax(r / tau) (Eq. 7). A response counts as chosen if it ever was."""
    distinct: dict[tuple[str, str], ScoredResponse] = {}
    chosen: set[tuple[str, str]] = set()
    for score in scores:
        if score.split != "train":
            continue
        key = (score.prompt_id, score.response)
        distinct.setdefault(key, score)
        if score.side == "chosen":
            chosen.add(key)
    if not distinct:
        raise ValueError("there are no scored responses of training prompts to learn from")
    calibrated = [calibration.apply(score.rewards) for score in distinct.values()]
    rewards_NK = np.array([[rewards[name] for name in names] for rewards in calibrated])
    return Known(
        prompt_ids=tuple(prompt_id for prompt_id, _ in distinct),
        responses=tuple(response for _, response in distinct),
        chosen_N=np.array([key in chosen for key in distinct]),
        rewards_NK=rewards_NK,
        weights_NK=softmax(rewards_NK, tau),
    )


def good_responses(known: Known, *, keep: Keep, quantile: float) -> np.ndarray:
    """Which known responses pass the filter, (N,) bool: RiC's, or chosen or of high utility under their own weights."""
    if keep == "any_above_quantile":
        return any_above(known.rewards_NK, known, quantile=quantile)
    utility_N = (known.weights_NK * known.rewards_NK).sum(axis=1)
    return np.asarray(known.chosen_N | (utility_N > np.quantile(utility_N, quantile)))


def any_above(rewards_NK: np.ndarray, known: Known, *, quantile: float) -> np.ndarray:
    """RiC's filter: any reward above its quantile over the known responses, (N,) bool."""
    threshold_K = np.quantile(known.rewards_NK, quantile, axis=0)
    return np.asarray((rewards_NK > threshold_K).any(axis=1))


def known_rows(
    known: Known, which: Sequence[int], prompts: Mapping[str, Prompt], reader: PolicyTokenizer
) -> list[TokenRow]:
    """Rows (x, w*(x, y), y) of known responses."""
    context_format = reader.context_format
    rows = []
    for i in which:
        weights = on_grid(known.weights_NK[i], context_format)
        prompt_ids = reader.prompt_ids(prompts[known.prompt_ids[i]].messages, weights)
        rows.append(TokenRow(tuple(prompt_ids), tuple(reader.response_ids(known.responses[i]))))
    return rows


def on_grid(weights_K: np.ndarray, context_format: ContextFormat) -> Weights:
    """Weights by name, rounded as the context writes them."""
    return round_weights(
        dict(zip(context_format.objectives, weights_K.tolist(), strict=True)), context_format.units
    )


def ask(
    prompts: Sequence[Prompt],
    predicted_NK: np.ndarray,
    context_format: ContextFormat,
    *,
    random_share: float,
    seed: int,
) -> list[Ask]:
    """Each prompt with f(x), or for a share of them with weights from Dirichlet(1)."""
    rng = np.random.default_rng(seed)
    is_random_N = np.zeros(len(prompts), dtype=bool)
    is_random_N[rng.permutation(len(prompts))[: round(random_share * len(prompts))]] = True
    drawn_NK = rng.dirichlet(np.ones(len(context_format.objectives)), size=len(prompts))
    return [
        Ask(
            prompt,
            on_grid(drawn if is_random else predicted, context_format),
            "dirichlet" if is_random else "orchestrator",
        )
        for prompt, predicted, drawn, is_random in zip(
            prompts, predicted_NK, drawn_NK, is_random_N, strict=True
        )
    ]


def judge(
    asks: Sequence[Ask],
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
    asked: Ask,
    group_NK: np.ndarray,
    finished_N: np.ndarray,
    known: Known,
    mine: list[int],
    *,
    quantile: float,
) -> np.ndarray:
    """The best finished one under the asked weights, if above the prompt's known responses or the global quantile."""
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


def originals(good_N: np.ndarray, *, fresh: int, share: float, seed: int) -> list[int]:
    """Known responses to mix into `fresh` samples so that they make up `share` of all; fewer where there are fewer."""
    candidates_M = np.flatnonzero(good_N)
    wanted = len(candidates_M) if fresh == 0 else round(fresh * share / (1 - share))
    order_M = np.random.default_rng(seed).permutation(len(candidates_M))
    return [int(candidates_M[i]) for i in order_M[:wanted]]


def sample_metrics(samples: Sequence[Sample], *, per_prompt: int) -> dict[str, float]:
    """Mean utility under the asked weights: of all samples, of each prompt's best, of the kept; and mean rewards."""
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
