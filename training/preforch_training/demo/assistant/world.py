"""The demo world, whose objectives are helpful, harmless and humor: what `world.World` asks of it."""

from collections.abc import Sequence

import numpy as np

from preforch_training.demo.assistant import prompts, responses
from preforch_training.demo.assistant.families import FAMILIES, OBJECTIVES
from preforch_training.demo.assistant.responses import Parts
from preforch_training.demo.world import NEW_TOPICS, World


class AssistantWorld(World):
    """World 2 (docs/results.md)."""

    objectives = OBJECTIVES
    families = FAMILIES

    def topics(self, split: str) -> Sequence[str]:
        """Adjective and noun."""
        return prompts.topics(held_out=split in NEW_TOPICS)

    def read_prompt(self, prompt: str) -> prompts.AssistantReading:
        """By its phrasing, with the one topic in it."""
        return prompts.read_prompt(prompt)

    def draw_response(self, rng: np.random.Generator, topic: str) -> str:
        """Sentences of random kinds."""
        return responses.draw_response(rng, topic)

    def parse(self, prompt: str, response: str) -> Parts:
        """The parts of any text as a response to a prompt of this world; ValueError for any other prompt."""
        return responses.count_parts(self.read_prompt(prompt).topic, response)

    def true_rewards(self, prompt: str, response: str) -> dict[str, float]:
        """From the response's parts alone."""
        return responses.reward(self.parse(prompt, response), self.read_prompt(prompt).family)


ASSISTANT = AssistantWorld()
