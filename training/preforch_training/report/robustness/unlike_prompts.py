"""Prompts unlike training data: does the confidence of an orchestrator tell them from prompts like its
training data?

In:  a seed, held-out prompts (joined to very long ones), words of a tokenizer's vocabulary.
Out: texts of four kinds, always the same for one seed; and the AUROC with which a signal separates held-out
     prompts (high) from each kind (low).
"""

import random
from collections.abc import Mapping, Sequence

import numpy as np

from preforch_training.orchestrator.confidence.foreign_texts import foreign_texts
from preforch_training.statistics.bootstrap import Bootstrap, Interval
from preforch_training.statistics.metrics import weighted_auroc


def unlike_prompts(
    held_out_texts: Sequence[str], *, words: Sequence[str], long_characters: int, seed: int, count: int = 100
) -> dict[str, list[str]]:
    """`count` texts of each kind: code, languages and noise that nothing was fitted to, and long ones, which
    join held-out texts to `long_characters`."""
    foreign = foreign_texts(half="measured", words=words, seed=seed, count=count)
    rng = random.Random(f"{seed} long")
    return foreign | {"long": [_long(rng, held_out_texts, long_characters) for _ in range(count)]}


def _long(rng: random.Random, held_out_texts: Sequence[str], characters: int) -> str:
    """Whole held-out texts, one after the other, until there is enough."""
    text = rng.choice(held_out_texts)
    while len(text) < characters:
        text += "\n" + rng.choice(held_out_texts)
    return text


def separation(
    inside_N: np.ndarray, outside: Mapping[str, np.ndarray], *, bootstrap: Bootstrap
) -> dict[str, Interval]:
    """AUROC per kind: the chance that a prompt like the training data scores above one unlike it, ties
    counting half.

    Prompts of both sides are drawn anew for the 95% interval, whose `groups` counts them all.
    """
    found = {}
    for kind, outside_M in outside.items():
        rng = np.random.default_rng(bootstrap.seed)
        sizes = (len(inside_N), len(outside_M))
        scores, inside = np.concatenate([inside_N, outside_M]), np.repeat([True, False], sizes)
        drawn = [rng.multinomial(size, np.full(size, 1 / size), size=bootstrap.replicates) for size in sizes]
        low, high = np.quantile(weighted_auroc(scores, inside, np.concatenate(drawn, axis=1)), [0.025, 0.975])
        (value,) = weighted_auroc(scores, inside, np.ones((1, sum(sizes))))
        found[kind] = Interval(value=float(value), low=float(low), high=float(high), groups=sum(sizes))
    return found
