"""What is truly known of a data set: only the evaluation may ask, and only the demo world can answer."""

import random
from typing import Protocol

import numpy as np

from preforch_training.demo import world
from preforch_training.demo.prompts import read_prompt


class Truth(Protocol):
    """True weights and rewards, (K,), in the order of the run's objectives, and the kind of a prompt."""

    def weights(self, prompt: str) -> np.ndarray:
        """w°(x)."""

    def rewards(self, prompt: str, response: str) -> np.ndarray:
        """r(x, y)."""

    def family(self, prompt: str) -> str:
        """The kind of request."""


class DemoTruth:
    """The demo world's truth."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def weights(self, prompt: str) -> np.ndarray:
        """w°(x)."""
        return np.array(list(world.true_weights(prompt, self._names).values()))

    def rewards(self, prompt: str, response: str) -> np.ndarray:
        """r(x, y), from the response's parts."""
        known = world.true_rewards(prompt, response)
        return np.array([known[name] for name in self._names])

    def family(self, prompt: str) -> str:
        """Name of the prompt's family."""
        return read_prompt(prompt).family.name

    def rephrase(self, prompt: str, rng: random.Random) -> str:
        """Another phrasing of the same family and topic, one that no training prompt has."""
        said = read_prompt(prompt)
        others = [phrasing for phrasing in said.family.held_out_phrasings if phrasing != said.phrasing]
        return rng.choice(others).format(t=said.topic)
