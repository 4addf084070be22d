"""A small linear world for the tests of the report: three families, rewards that a response spells out.

A response is K numbers, its rewards. The policy (`EchoSampler`) answers with the weights it is asked for.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from preforch_models.context import ContextFormat
from preforch_models.conversation import Message
from preforch_training.records import Prompt
from preforch_training.report.facts import Facts
from preforch_training.report.policies.comparison import MEASURES
from preforch_training.report.policies.judging import PolicyJudge
from preforch_training.report.policies.records import Scale
from preforch_training.report.policies.responses import Drawing
from preforch_training.sampling.settings import Sampling
from preforch_training.sampling.vllm import Generation, SampleRequest
from preforch_training.statistics.bootstrap import Bootstrap

NAMES = ("helpful", "harmless", "humor")
BOOTSTRAP = Bootstrap(seed=1, replicates=200)
SPLITS = {"train": 120, "validation": 60, "test_phrasing": 60, "test_topic": 60, "test_both": 60}
FAMILIES = {"how-to": (0.8, 0.1, 0.1), "risky": (0.1, 0.8, 0.1), "wish": (0.1, 0.1, 0.8)}


class LinearTruth:
    """The family is the prompt's first word."""

    def weights(self, prompt: str) -> np.ndarray:
        return np.array(FAMILIES[self.family(prompt)])

    def rewards(self, prompt: str, response: str) -> np.ndarray:
        return read_response(response)

    def family(self, prompt: str) -> str:
        return prompt.split()[0]


class EchoSampler:
    """Answers with the asked weights, as the policy of `gain` 1 would; a smaller gain listens less.

    A policy whose gain is a text reads no weights: it always answers with that text.
    """

    def __init__(self, gains: Mapping[str, float | str]) -> None:
        self.gains = gains
        self.calls: list[tuple[str, int]] = []

    def close(self) -> None:
        """There is nothing to give back."""

    @property
    def peak_memory_mib(self) -> float:
        return 0.0

    def sample(
        self,
        policy: Path,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
    ) -> list[list[Generation]]:
        self.calls.append((policy.name, len(requests)))
        gain = self.gains[policy.name]
        texts = [
            gain if isinstance(gain, str) else " ".join(str(gain * request.weights[name]) for name in NAMES)
            for request in requests
        ]
        return [[Generation(token_ids=(1,), text=text, finished=True)] for text in texts]


def read_response(response: str) -> np.ndarray:
    """The rewards that a response spells out, (K,)."""
    return np.array([float(word) for word in response.split()])


def calibrated(prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
    """Calibrated rewards of a world whose reward models are right."""
    return np.stack([read_response(response) for response in responses])


def make_facts(*, noise: float = 0.05, families: Sequence[str] = tuple(FAMILIES)) -> Facts:
    """Three overall pairs a prompt; targets are the true weights with some noise; families in turn."""
    rng = np.random.default_rng(0)
    prompts = [
        Prompt(
            id=f"{split}-{i}",
            messages=(Message(role="user", content=f"{families[i % len(families)]} number {i}"),),
            split=split,
        )
        for split, count in SPLITS.items()
        for i in range(count)
    ]
    truth = LinearTruth()
    true_PK = np.stack([truth.weights(prompt.text) for prompt in prompts])
    prompt_N = np.repeat(np.arange(len(prompts)), 3)
    raw_NK = np.maximum(true_PK[prompt_N] + noise * rng.normal(size=(len(prompt_N), 3)), 0.01)
    return Facts(
        names=NAMES,
        prompts=prompts,
        prompt_N=prompt_N,
        margin_NK=true_PK[prompt_N] - 1 / 3 + 0.1 * rng.normal(size=(len(prompt_N), 3)),
        target_NK=raw_NK / raw_NK.sum(axis=1, keepdims=True),
        true_PK=true_PK,
        family_P=np.array([truth.family(prompt.text) for prompt in prompts]),
    )


def make_judge(facts: Facts) -> PolicyJudge:
    """A judge that knows the truth where the facts do."""
    context_format = ContextFormat(objectives=NAMES, encoding="levels")
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=8, dtype="auto")
    drawing = Drawing(context_format=context_format, sampling=sampling, seed_of=len)
    corners = {"low": dict.fromkeys(NAMES, 0.0), "high": dict.fromkeys(NAMES, 1.0)}
    return PolicyJudge(
        facts,
        LinearTruth() if facts.true_PK is not None else None,
        calibrated,
        drawing,
        BOOTSTRAP,
        scales={measure: Scale(measure=measure, **corners) for measure in MEASURES},
    )
