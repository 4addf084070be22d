"""The tutor world, whose objectives are accuracy, engagement and brevity: what `world.World` asks of it.

Accuracy can be verified from the texts by anyone, so it may be trained on (`checker.accuracy`); engagement
and brevity are known to the evaluation alone, and a trainer has pairs of them.
"""

from collections.abc import Sequence

import numpy as np

from preforch_training.demo.tutor import prompts, solutions
from preforch_training.demo.tutor.families import FAMILIES, OBJECTIVES
from preforch_training.demo.tutor.problems import problems, read_problem
from preforch_training.demo.world import World


class TutorWorld(World):
    """Topics are problems; those of `test_topic` and `test_both` start from numbers that are held out."""

    objectives = OBJECTIVES
    families = FAMILIES

    def topics(self, split: str) -> Sequence[str]:
        """Problems as they are told."""
        return problems(split)

    def read_prompt(self, prompt: str) -> prompts.TutorReading:
        """By what stands before and after the problem."""
        return prompts.read_prompt(prompt)

    def draw_response(self, rng: np.random.Generator, topic: str) -> str:
        """A solution, told in some way and right or not."""
        return solutions.draw_solution(rng, read_problem(topic))

    def true_rewards(self, prompt: str, response: str) -> dict[str, float]:
        """From the checker and the lines of the response."""
        return solutions.true_rewards(self.read_prompt(prompt).problem, response)


TUTOR = TutorWorld()
