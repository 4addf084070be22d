"""Responses that the report asked a policy for: which (prompt, weights) are needed, each drawn once.

Every prompt has one seed, so that all weights and all policies are compared on the same random numbers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from preforch_models.context import ContextFormat
from preforch_models.weights import round_weights

from preforch_training.records import Prompt
from preforch_training.sampling.settings import Sampling
from preforch_training.sampling.vllm import Generation, Sampler, SampleRequest

CalibratedScorer = Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]
"""(prompts, responses) -> calibrated rewards, (N, K)."""
Query = tuple[int, tuple[float, ...]]
"""Index of a prompt, and rounded weights in the order of the objectives."""


@dataclass(frozen=True)
class Drawing:
    """How responses are drawn; the same for all policies. `seed_of`: the seed of a prompt, by its id."""

    context_format: ContextFormat
    sampling: Sampling
    seed_of: Callable[[str], int]


@dataclass(frozen=True)
class Drawn:
    """One response to each weighted prompt; one that is not finished was cut at the token limit."""

    responses: Mapping[Query, Generation]
    seconds: float

    @property
    def unfinished(self) -> int:
        """Number of those that were cut."""
        return sum(not answer.finished for answer in self.responses.values())

    def and_more(self, more: "Drawn") -> "Drawn":
        """These and others of the same policy."""
        return Drawn({**self.responses, **more.responses}, self.seconds + more.seconds)

    def texts(self, asked: Sequence[Query]) -> list[str]:
        """The responses, (N,)."""
        return [self.responses[query].text for query in asked]


def weighted(prompt: int, weights_K: np.ndarray, context_format: ContextFormat) -> Query:
    """A prompt with weights, rounded to the context's grid."""
    named = {name: float(value) for name, value in zip(context_format.objectives, weights_K, strict=True)}
    return prompt, tuple(round_weights(named, context_format.units).values())


def draw(
    sampler: Sampler,
    policy: Path,
    asked: Sequence[Query],
    prompts: Sequence[Prompt],
    drawing: Drawing,
) -> Drawn:
    """One response to each distinct weighted prompt."""
    distinct = list(dict.fromkeys(asked))
    requests = [
        SampleRequest(
            messages=prompts[index].messages,
            weights=dict(zip(drawing.context_format.objectives, weights, strict=True)),
            n=1,
            seed=drawing.seed_of(prompts[index].id),
        )
        for index, weights in distinct
    ]
    start = time.monotonic()
    generations = sampler.sample(
        policy,
        requests,
        temperature=drawing.sampling.temperature,
        top_p=drawing.sampling.top_p,
        max_tokens=drawing.sampling.max_tokens,
    )
    return Drawn(
        responses={key: answers[0] for key, answers in zip(distinct, generations, strict=True)},
        seconds=time.monotonic() - start,
    )


def draw_best(
    sampler: Sampler,
    policy: Path,
    asked: Sequence[Query],
    prompts: Sequence[Prompt],
    drawing: Drawing,
    *,
    samples: int,
    score: CalibratedScorer,
) -> Drawn:
    """The same, each the best of several responses by w.r; those of a prompt are drawn once."""
    names = drawing.context_format.objectives
    indices = list(dict.fromkeys(index for index, _ in asked))
    evenly = round_weights(dict.fromkeys(names, 1 / len(names)), drawing.context_format.units)
    requests = [
        SampleRequest(prompts[i].messages, evenly, n=samples, seed=drawing.seed_of(prompts[i].id))
        for i in indices
    ]
    start = time.monotonic()
    sampling = drawing.sampling
    generations = sampler.sample(
        policy,
        requests,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
    )
    texts = [generation.text for group in generations for generation in group]
    rewards_NK = score([prompts[i] for i in indices for _ in range(samples)], texts)
    rewards = dict(zip(indices, rewards_NK.reshape(len(indices), samples, -1), strict=True))
    by_prompt = dict(zip(indices, generations, strict=True))
    best = {query: int((rewards[query[0]] @ np.array(query[1])).argmax()) for query in dict.fromkeys(asked)}
    return Drawn(
        responses={query: by_prompt[query[0]][i] for query, i in best.items()},
        seconds=time.monotonic() - start,
    )
