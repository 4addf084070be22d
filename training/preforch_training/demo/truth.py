"""What is truly known of a data set: only the evaluation may ask, and only a generated world can answer."""

import random
from typing import Protocol

import numpy as np

from preforch_training.demo.world import World


class Truth(Protocol):
    """True weights and rewards, (K,), in the order of the run's objectives, and the kind of a prompt."""

    def weights(self, prompt: str) -> np.ndarray:
        """w°(x)."""

    def rewards(self, prompt: str, response: str) -> np.ndarray:
        """r(x, y)."""

    def family(self, prompt: str) -> str:
        """The kind of request."""


class WorldTruth:
    """The truth of a generated world."""

    def __init__(self, world: World, names: tuple[str, ...]) -> None:
        self._world = world
        self._names = names

    def weights(self, prompt: str) -> np.ndarray:
        """w°(x)."""
        return np.array(list(self._world.true_weights(prompt, self._names).values()))

    def rewards(self, prompt: str, response: str) -> np.ndarray:
        """r(x, y), from the texts alone."""
        known = self._world.true_rewards(prompt, response)
        return np.array([known[name] for name in self._names])

    def family(self, prompt: str) -> str:
        """Name of the prompt's family."""
        return self._world.read_prompt(prompt).family.name

    def rephrase(self, prompt: str, rng: random.Random) -> str:
        """Another phrasing of the same family and topic, one that no training prompt has."""
        said = self._world.read_prompt(prompt)
        others = [phrasing for phrasing in said.family.held_out_phrasings if phrasing != said.phrasing]
        return rng.choice(others).format(t=said.topic)
