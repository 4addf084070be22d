"""The overall pairs with their calibrated rewards: the score table, joined by pair and by prompt.

In:  scored responses, the two of a pair one after the other, and calibration.
Out: `PairRewards`, from which `targets.labels_for` makes what f is fitted to.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from preforch_models.calibration import Calibration

from preforch_training.records import Numbers, ScoredResponse, first_places


@dataclass(frozen=True)
class PairRewards:
    """N pairs in the order of the score table. `others_NK`: mean of the prompt's known responses but the
    chosen one. `prompt_key_N`: `keys_of` the prompts' ids."""

    prompt_key_N: np.ndarray
    chosen_NK: np.ndarray
    rejected_NK: np.ndarray
    others_NK: np.ndarray


def pair_rewards(
    scores: Iterable[ScoredResponse], calibration: Calibration, names: Sequence[str]
) -> PairRewards:
    """Only numbers are kept. Raises ValueError naming a pair that has only one side, or whose two responses
    are the same."""
    prompts, responses, raw = Numbers("q"), Numbers("q"), Numbers("d")
    for chosen, rejected in _both_sides(scores):
        prompts.add(hash(chosen.prompt_id))
        for score in (chosen, rejected):
            responses.add(hash((score.prompt_id, score.response)))
            raw.add(*(score.rewards[name] for name in names))
    prompt_key_N = prompts.array()
    calibrated_SK = calibration.apply_matrix(raw.array().reshape(-1, len(names)))
    return PairRewards(
        prompt_key_N=prompt_key_N,
        chosen_NK=calibrated_SK[::2],
        rejected_NK=calibrated_SK[1::2],
        others_NK=_others(prompt_key_N, responses.array(), calibrated_SK),
    )


def _both_sides(scores: Iterable[ScoredResponse]) -> Iterator[tuple[ScoredResponse, ScoredResponse]]:
    """(chosen, rejected) of every pair."""
    rest = iter(scores)
    for first in rest:
        second = next(rest, None)
        if second is None or second.pair_id != first.pair_id or second.side == first.side:
            raise ValueError(
                f"score table: pair {first.pair_id!r} has only the side {first.side!r}, or the other is not "
                "beside it"
            )
        if first.response == second.response:
            raise ValueError(f"score table: pair {first.pair_id!r} prefers a response to itself")
        yield (first, second) if first.side == "chosen" else (second, first)


def _others(prompt_key_N: np.ndarray, response_S: np.ndarray, calibrated_SK: np.ndarray) -> np.ndarray:
    """Mean of a prompt's known responses but the chosen one, each counted once, (N, K). Rows of `S`: chosen
    and rejected in turns."""
    prompt_N = np.unique(prompt_key_N, return_inverse=True)[1]
    first_U, which_S = first_places(response_S)
    prompt_U, known_UK = prompt_N[first_U // 2], calibrated_SK[first_U]
    others_NK = calibrated_SK[1::2].copy()
    sizes_N = np.bincount(prompt_U)[prompt_N]
    # Where a prompt has but two responses, the other one is the rejected one, to the last digit.
    several_N = sizes_N > 2
    for k, known_U in enumerate(known_UK.T):
        sums_N = np.bincount(prompt_U, weights=known_U)[prompt_N]
        means_N = (sums_N - known_U[which_S[::2]]) / (sizes_N - 1)
        others_NK[several_N, k] = means_N[several_N]
    return others_NK
