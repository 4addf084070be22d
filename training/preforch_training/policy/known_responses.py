"""The responses that a run already knows and has scored, and which of them a policy learns from.

In:  scored responses with their calibration.
Out: distinct training responses with calibrated rewards and the weights of Eq. 7; filters over them; token
     rows.

Source: paper, Eq. 7; filters from RiC. Departure: `good_responses` by weights [ours], since softmax weights
carry no absolute quality ((-3, -3) and (3, 3) look alike), so that a rejected response must be good by its
own weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from preforch_models.calibration import Calibration
from preforch_models.context import ContextFormat
from preforch_models.weights import Weights, round_weights

from preforch_training.orchestrator.targets import softmax
from preforch_training.policy.fine_tuning import TokenRow
from preforch_training.policy.settings.wic import Keep
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt, ScoredResponse


@dataclass(frozen=True)
class Known:
    """The distinct scored responses of the training prompts: N of them, calibrated rewards and Eq. 7
    weights (N, K)."""

    prompt_ids: tuple[str, ...]
    responses: tuple[str, ...]
    chosen_N: np.ndarray
    rewards_NK: np.ndarray
    weights_NK: np.ndarray


def known_responses(
    scores: Sequence[ScoredResponse], calibration: Calibration, names: Sequence[str], *, tau: float
) -> Known:
    """Training responses with weights softmax(r / tau) (Eq. 7). A response counts as chosen if it ever
    was."""
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
    """Which known responses pass the filter, (N,) bool: RiC's, or chosen or of high utility under their
    own weights."""
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
    """Rows (x, w*(x, y), y) of known responses, for a policy that reads weights in its context."""
    context_format = reader.card.context_format
    assert context_format is not None, "a policy without a context reads no weights"
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


def originals(good_N: np.ndarray, *, fresh: int, share: float, seed: int) -> list[int]:
    """Known responses to mix into `fresh` samples so that they make up `share` of all; fewer where there
    are fewer."""
    candidates_M = np.flatnonzero(good_N)
    wanted = len(candidates_M) if fresh == 0 else round(fresh * share / (1 - share))
    order_M = np.random.default_rng(seed).permutation(len(candidates_M))
    return [int(candidates_M[i]) for i in order_M[:wanted]]
