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
from preforch_training.sampling.vllm import Sampler, SampleRequest

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
    """One response to each weighted prompt. `unfinished` ones were cut at the token limit."""

    responses: Mapping[Query, str]
    unfinished: int
    seconds: float


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
    firsts = [answers[0] for answers in generations]
    return Drawn(
        responses={key: answer.text for key, answer in zip(distinct, firsts, strict=True)},
        unfinished=sum(not answer.finished for answer in firsts),
        seconds=time.monotonic() - start,
    )


def draw_more(
    sampler: Sampler,
    policy: Path,
    asked: Sequence[Query],
    prompts: Sequence[Prompt],
    drawing: Drawing,
    drawn: Drawn,
) -> Drawn:
    """What was drawn from a policy before, and what is asked now and was not."""
    missing = [query for query in asked if query not in drawn.responses]
    if not missing:
        return drawn
    more = draw(sampler, policy, missing, prompts, drawing)
    return Drawn(
        responses={**drawn.responses, **more.responses},
        unfinished=drawn.unfinished + more.unfinished,
        seconds=drawn.seconds + more.seconds,
    )
