"""A synthetic world for the tests of the study: prompts whose vector says which of two objectives they are
about.

Rewards are known numbers, in no need of a reward model. Responses are numbers too, so that a test can look
theirs up.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from preforch_models.conversation import Message
from preforch_training.records import OVERALL, PreferencePair, Prompt
from preforch_training.statistics.bootstrap import Bootstrap
from preforch_training.study.choices import Choice
from preforch_training.study.data import StudyData, gather, prompt_folds

NAMES = ("first", "second")
BOOTSTRAP = Bootstrap(seed=1, replicates=200)
FORWARD = Choice(calibration="zscore", target="margin_softmax", loss="forward", tau=0.5)
GATE = Choice(calibration="zscore", target="margin_softmax", loss="bt_gate", tau=0.5)
SHARE = 0.9
"""True weight on the objective that a prompt is about."""


@dataclass(frozen=True)
class World:
    """`rewards_FUK`: every outer fold sees the true rewards with an error of its own."""

    data: StudyData
    true_PK: np.ndarray
    rewards_FUK: np.ndarray
    features_PD: np.ndarray
    fold_P: np.ndarray


def make_world(
    *, vary: bool = True, prompts: int = 300, folds: int = 4, seed: int = 0, noise: float = 0.05
) -> World:
    """Three responses a prompt and all their pairs;
    without `vary` every prompt is about the first objective."""
    rng = np.random.default_rng(seed)
    about_P = np.arange(prompts) % 2
    true_PK = np.where((about_P if vary else np.zeros(prompts))[:, None] == [0, 1], SHARE, 1 - SHARE)
    rewards_U2 = rng.normal(size=(prompts * 3, 2))
    asked, pairs = [], []
    for p in range(prompts):
        messages = (Message(role="user", content=f"prompt {p}"),)
        asked.append(
            Prompt(id=f"p{p}", messages=messages, split="train", category=f"{NAMES[about_P[p]]} set")
        )
        for a, b in ((0, 1), (0, 2), (1, 2)):
            left, right = 3 * p + a, 3 * p + b
            margin_2 = rewards_U2[left] - rewards_U2[right]
            gains = {**dict(zip(NAMES, margin_2, strict=True)), OVERALL: true_PK[p] @ margin_2}
            for name, gain in gains.items():
                # A few labels are wrong, as people's are.
                chosen, rejected = (left, right) if gain + 0.3 * rng.normal() > 0 else (right, left)
                ids = {"id": f"{name}-{p}-{a}{b}", "prompt_id": f"p{p}", "objective": name, "split": "train"}
                pairs.append(PreferencePair(**ids, chosen=str(chosen), rejected=str(rejected)))
    data = gather(asked, pairs, NAMES)
    rewards_FUK = rewards_U2[[int(response) for response in data.responses]] * [1.0, 3.0]
    rewards_FUK = rewards_FUK + noise * rng.normal(size=(folds, *rewards_FUK.shape))
    features_PD = np.column_stack([2.0 * about_P - 1, np.zeros((prompts, 3))]) + 0.3 * rng.normal(
        size=(prompts, 4)
    )
    return World(data, true_PK, rewards_FUK, features_PD, prompt_folds(data, folds, seed=seed))


def swap_labels(data: StudyData, swapped_P: np.ndarray) -> StudyData:
    """Chosen and rejected of every pair exchanged, overall and by objective, for some prompts."""
    pairs = {
        name: np.where(swapped_P[data.prompt_U[pairs_M2[:, 0]]][:, None], pairs_M2[:, ::-1], pairs_M2)
        for name, pairs_M2 in data.pairs.items()
    }
    return replace(data, pairs=pairs)


def fit_direction(
    vectors_UD: np.ndarray,
) -> Callable[[str, np.ndarray, int], Callable[[np.ndarray], np.ndarray]]:
    """A crude reward model that every pair moves: the mean difference between chosen and rejected vectors."""

    def fit(name: str, pairs_M2: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        direction_D = (vectors_UD[pairs_M2[:, 0]] - vectors_UD[pairs_M2[:, 1]]).mean(axis=0)
        return lambda rows_R: vectors_UD[rows_R] @ direction_D

    return fit


class Memory:
    """Fits nothing: a scorer answers with the number of its fit,
    under which stand the prompts that it has seen."""

    def __init__(self, data: StudyData) -> None:
        self._data = data
        self.fits: list[tuple[str, set[int]]] = []

    def __call__(self, name: str, pairs_M2: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        number = len(self.fits)
        self.fits.append((name, set(self._data.prompt_U[pairs_M2].ravel().tolist())))
        return lambda rows_R: np.full(len(rows_R), float(number))
