"""The overall pairs with their calibrated rewards: the score table, joined by pair and by prompt.

In:  scored responses, calibration. Out: `PairRewards`, from which `targets.labels_for` makes what f is fitted
     to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from preforch_models.calibration import Calibration

from preforch_training.records import ScoredResponse


@dataclass(frozen=True)
class PairRewards:
    """N pairs in the order of the score table. `others_NK`: mean of the prompt's known responses but the
    chosen one."""

    prompt_ids: list[str]
    chosen_NK: np.ndarray
    rejected_NK: np.ndarray
    others_NK: np.ndarray


def pair_rewards(
    scores: Sequence[ScoredResponse], calibration: Calibration, names: Sequence[str]
) -> PairRewards:
    """Raises ValueError naming a pair that has only one side, or whose two responses are the same."""
    calibrated_SK = calibration.apply_matrix(
        np.array([[score.rewards[name] for name in names] for score in scores])
    )
    sides: dict[str, dict[str, int]] = {}
    known: dict[str, dict[str, int]] = {}
    for row, score in enumerate(scores):
        sides.setdefault(score.pair_id, {})[score.side] = row
        known.setdefault(score.prompt_id, {}).setdefault(score.response, row)
    others = []
    for pair_id, rows in sides.items():
        if set(rows) != {"chosen", "rejected"}:
            raise ValueError(f"score table: pair {pair_id!r} has only the side {list(rows)}, both are needed")
        chosen = scores[rows["chosen"]]
        rest = [row for response, row in known[chosen.prompt_id].items() if response != chosen.response]
        if not rest:
            raise ValueError(f"score table: pair {pair_id!r} prefers a response to itself")
        others.append(calibrated_SK[rest].mean(axis=0))
    chosen_rows = [rows["chosen"] for rows in sides.values()]
    return PairRewards(
        prompt_ids=[scores[row].prompt_id for row in chosen_rows],
        chosen_NK=calibrated_SK[chosen_rows],
        rejected_NK=calibrated_SK[[rows["rejected"] for rows in sides.values()]],
        others_NK=np.stack(others),
    )
