"""What the report measures on: prompts, and overall pairs with calibrated rewards and w* (METHOD 3; Eq. 7).

In:  records and the score table. Out: `Facts`, arrays whose rows are prompts (P) or overall pairs (N).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from preforch_models.calibration import Calibration

from preforch_training.demo.truth import Truth
from preforch_training.orchestrator.config import Loss, Target
from preforch_training.orchestrator.targets import (
    target_weights,
)
from preforch_training.records import Prompt, ScoredResponse, keys_of
from preforch_training.scores.pairs import pair_rewards


@dataclass(frozen=True)
class Method:
    """How the run made its targets and fitted f to them."""

    target: Target
    tau: float
    loss: Loss

    @property
    def measured(self) -> Target:
        """The target that f is measured on:
        `bt_gate` has none of its own, margins are what it is fitted to."""
        return "margin_softmax" if self.loss == "bt_gate" else self.target


@dataclass(frozen=True)
class Facts:
    """`prompt_N` points into `prompts`; `true_PK` and `family_P` are None where the truth is unknown."""

    names: tuple[str, ...]
    prompts: Sequence[Prompt]
    prompt_N: np.ndarray
    margin_NK: np.ndarray
    target_NK: np.ndarray
    true_PK: np.ndarray | None
    family_P: np.ndarray | None

    @property
    def split_P(self) -> np.ndarray:
        """Split of each prompt."""
        return np.array([prompt.split for prompt in self.prompts])

    @property
    def held_out(self) -> list[str]:
        """Splits that nothing was trained on, validation first."""
        return sorted(
            {p.split for p in self.prompts} - {"train"}, key=lambda split: (split != "validation", split)
        )

    @property
    def tests(self) -> list[str]:
        """Held-out splits that chose nothing either: all but validation."""
        return [split for split in self.held_out if split != "validation"]

    def pairs_of(self, split: str) -> np.ndarray:
        """Rows of the overall pairs of a split."""
        return np.flatnonzero(self.split_P[self.prompt_N] == split)


def gather_facts(
    names: tuple[str, ...],
    prompts: Sequence[Prompt],
    scores: Sequence[ScoredResponse],
    calibration: Calibration,
    method: Method,
    truth: Truth | None,
) -> Facts:
    """Facts of a run. Raises ValueError where a pair of the score table lacks a side."""
    place = {key: i for i, key in enumerate(keys_of(prompt.id for prompt in prompts).tolist())}
    pairs = pair_rewards(scores, calibration, names)
    texts = [prompt.text for prompt in prompts]
    return Facts(
        names=names,
        prompts=prompts,
        prompt_N=np.array([place[key] for key in pairs.prompt_key_N.tolist()]),
        margin_NK=pairs.chosen_NK - pairs.rejected_NK,
        target_NK=target_weights(
            pairs.chosen_NK, pairs.rejected_NK, pairs.others_NK, target=method.measured, tau=method.tau
        ),
        true_PK=None if truth is None else np.stack([truth.weights(text) for text in texts]),
        family_P=None if truth is None else np.array([truth.family(text) for text in texts]),
    )
