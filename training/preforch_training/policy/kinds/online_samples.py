"""What an online round samples and what it keeps (paper, Eq. 11).

In:  prompts with f(x), generations of the current policy with their calibrated rewards.
Out: `Sample` records that say what was kept, and token rows of those.

Departures from the paper:
1. `best_by_weights` [ours]: of n samples the best under the asked weights is kept, where it is better than
   the prompt's best known response, so that a round learns what the data do not have already; where nothing
   is known of a prompt, than the quantile of all known responses.
2. A share of the prompts gets random weights [ours], otherwise weights that users choose are never trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from preforch_models.context import ContextFormat
from preforch_models.weights import Weights

from preforch_training.policy.fine_tuning import TokenRow
from preforch_training.policy.known_responses import Known, any_above, on_grid
from preforch_training.policy.settings.wic import Keep, OnlineWeights
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt, Sample
from preforch_training.sampling.vllm import Generation


@dataclass(frozen=True)
class WeightedPrompt:
    """A prompt and the weights, on the grid, that a response is sampled under."""

    prompt: Prompt
    weights: Weights
    origin: OnlineWeights


def weighted(
    prompts: Sequence[Prompt],
    weights_NK: np.ndarray,
    random_N: np.ndarray,
    context_format: ContextFormat,
    *,
    source: OnlineWeights,
) -> list[WeightedPrompt]:
    """Each prompt with its weights on the grid. `random_N`: whose are drawn; the others are the source's."""
    return [
        WeightedPrompt(prompt, on_grid(weights_K, context_format), "random" if is_random else source)
        for prompt, weights_K, is_random in zip(prompts, weights_NK, random_N, strict=True)
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
    """Samples in order, with `kept`. `rewards_NK`: calibrated, by generation."""
    samples = [
        Sample(
            prompt_id=asked.prompt.id,
            weights=asked.weights,
            response=generation.text,
            token_ids=generation.token_ids,
            finished=generation.finished,
            rewards=dict(zip(asked.weights, rewards_K, strict=True)),
            kept=False,
            origin=asked.origin,
        )
        for (asked, generation), rewards_K in zip(
            ((asked, one) for asked, group in zip(asks, generations, strict=True) for one in group),
            rewards_NK.tolist(),
            strict=True,
        )
    ]
    kept_N = to_keep(samples, known, keep=keep, quantile=quantile)
    return [s.model_copy(update={"kept": kept}) for s, kept in zip(samples, kept_N.tolist(), strict=True)]


def to_keep(samples: Sequence[Sample], known: Known, *, keep: Keep, quantile: float) -> np.ndarray:
    """Which samples are kept, (N,) bool; an unfinished one never is. Those of a prompt lie side by side."""
    finished_N = np.array([sample.finished for sample in samples])
    if keep == "any_above_quantile":
        rewards_NK = np.array([list(sample.rewards.values()) for sample in samples])
        return np.asarray(any_above(rewards_NK, known, quantile=quantile) & finished_N)
    kept_N = np.zeros(len(samples), dtype=bool)
    for group in compare(samples, known):
        threshold = group.best_known
        if threshold is None:
            weights_K = np.array(list(samples[group.best].weights.values()))
            threshold = float(np.quantile(known.rewards_NK @ weights_K, quantile))
        kept_N[group.best] = group.utility > threshold
    return kept_N


@dataclass(frozen=True)
class Comparison:
    """The best finished sample of a prompt under the asked weights, as a row of all samples, and its utility;
    beside it that of the prompt's best known response under the same weights."""

    best: int
    utility: float
    best_known: float | None


def compare(samples: Sequence[Sample], known: Known) -> Iterator[Comparison]:
    """One for each prompt that has a finished sample."""
    rows = _rows_by_prompt(known)
    for prompt_id, group in groupby(enumerate(samples), key=lambda pair: pair[1].prompt_id):
        finished = {row: utility(sample) for row, sample in group if sample.finished}
        if not finished:
            continue
        best = max(finished, key=finished.__getitem__)
        mine_MK = known.rewards_NK[rows.get(prompt_id, [])]
        known_M = mine_MK @ np.array(list(samples[best].weights.values()))
        yield Comparison(best, finished[best], float(known_M.max()) if known_M.size else None)


def utility(sample: Sample) -> float:
    """w.r under the asked weights."""
    return sum(weight * sample.rewards[name] for name, weight in sample.weights.items())


def _rows_by_prompt(known: Known) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for i, prompt_id in enumerate(known.prompt_ids):
        rows.setdefault(prompt_id, []).append(i)
    return rows


def sample_rows(
    samples: Sequence[Sample], prompts: Mapping[str, Prompt], reader: PolicyTokenizer
) -> list[TokenRow]:
    """Rows (x, w, y) of the kept samples, in the sampler's own tokens."""
    return [
        TokenRow(tuple(reader.prompt_ids(prompts[s.prompt_id].messages, s.weights)), s.token_ids)
        for s in samples
        if s.kept
    ]


def sample_metrics(samples: Sequence[Sample], known: Known) -> dict[str, float]:
    """What the filter did, under the asked weights, and mean rewards.

    `kept_prompts`: share of prompts of which a sample was kept; `below_best_known`: share whose best finished
    sample is not above the prompt's best known response (of the prompts that have both); `gain_over_known`:
    mean utility of what was kept minus that of the prompt's best known response.
    """
    groups = list(compare(samples, known))
    kept = [sample for sample in samples if sample.kept]
    best_known = {samples[g.best].prompt_id: g.best_known for g in groups if g.best_known is not None}
    gains = [utility(s) - best_known[s.prompt_id] for s in kept if s.prompt_id in best_known]
    below = [g.utility <= g.best_known for g in groups if g.best_known is not None]
    return {
        "utility": _mean([utility(sample) for sample in samples]),
        "utility_best": _mean([group.utility for group in groups]),
        "utility_kept": _mean([utility(sample) for sample in kept]),
        "kept_samples": len(kept) / len(samples),
        "kept_prompts": len({s.prompt_id for s in kept}) / len({s.prompt_id for s in samples}),
        "below_best_known": _mean(below),
        "gain_over_known": _mean(gains),
        **{f"reward.{name}": _mean([s.rewards[name] for s in samples]) for name in samples[0].rewards},
    }


def fold_metrics(
    samples: Sequence[Sample], full_NK: np.ndarray, known: Known, *, keep: Keep, quantile: float
) -> dict[str, float]:
    """What scores by models that never saw the prompt's pairs change, against scores by the full models,
    `full_NK`: own-fold minus full, by objective, its mean and deviation; share of prompts of which another
    sample, or none, would be kept."""
    own_NK = np.array([list(sample.rewards.values()) for sample in samples])
    difference_NK = own_NK - full_NK
    full = [
        sample.model_copy(update={"rewards": dict(zip(sample.rewards, rewards_K, strict=True))})
        for sample, rewards_K in zip(samples, full_NK.tolist(), strict=True)
    ]
    one_N, other_N = (to_keep(either, known, keep=keep, quantile=quantile) for either in (samples, full))
    changed = {s.prompt_id for s, one, other in zip(samples, one_N, other_N, strict=True) if one != other}
    found = {"own_fold.kept_changes": len(changed) / len({sample.prompt_id for sample in samples})}
    for k, name in enumerate(samples[0].rewards):
        found[f"own_fold.{name}.mean"] = float(difference_NK[:, k].mean())
        found[f"own_fold.{name}.sd"] = float(difference_NK[:, k].std())
    return found


def _mean(values: Sequence[float]) -> float:
    """0 where there are none: a manifest holds finite numbers."""
    return float(np.mean(values)) if values else 0.0
