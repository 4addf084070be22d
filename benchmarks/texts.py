"""Texts of the benchmarks: from a JSON Lines file, or made from the demo world.

In:  a file and the name of a field, or a seed. Out: distinct texts in random order, the same for the same
     seed.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from preforch_training.demo.assistant.world import ASSISTANT


def read_texts(
    file: Path | None, *, field: str, limit: int, seed: int, median_words: float = 50
) -> list[str]:
    """Distinct texts in random order; without a file, made ones of about `median_words` words."""
    rng = np.random.default_rng(seed)
    distinct = dict.fromkeys(file_texts(file, field) if file is not None else ())
    while file is None and len(distinct) < limit:
        distinct |= dict.fromkeys(made_texts(rng, limit, median_words=median_words))
    texts = list(distinct)
    return [texts[i] for i in rng.permutation(len(texts))[:limit]]


def file_texts(file: Path, name: str) -> list[str]:
    """One field of every line. Raises ValueError naming the line that lacks it."""
    texts = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            value = json.loads(line).get(name)
            if not isinstance(value, str):
                raise ValueError(
                    f"{file}:{number}: field {name!r} is {value!r}, it must be a string; see --field"
                )
            texts.append(value)
    return texts


def made_texts(rng: np.random.Generator, count: int, *, median_words: float) -> list[str]:
    """Demo prompts and responses, strung together to lengths that vary as in chats (log-normal)."""
    data = ASSISTANT.generate(seed=0, train_prompts=60, validation_prompts=10, test_prompts=10)
    pieces = [text for pair in data.pairs for text in (pair.chosen, pair.rejected)]
    pieces += [prompt.text for prompt in data.prompts]
    texts = []
    for words in rng.lognormal(math.log(median_words), 0.9, size=count):
        text = pieces[rng.integers(len(pieces))]
        while len(text.split()) < words:
            text += " " + pieces[rng.integers(len(pieces))]
        texts.append(text)
    return texts


def describe(lengths: Sequence[int], file: Path | None, *, field: str, seed: int) -> str:
    """Where texts came from and how long they are in tokens, for the head of a table."""
    quantiles = ", ".join(f"{q:.0f}" for q in np.quantile(lengths, [0.05, 0.25, 0.5, 0.75, 0.95]))
    source = "demo world, strung together" if file is None else f"{file.name}, field {field}"
    return (
        f"Texts: {len(lengths)} distinct ({source}), seed {seed}; tokens at 5, 25, 50, 75, 95%: {quantiles}"
    )


class NewPrompts:
    """Prompts of the demo world, each with a number after it.

    No two are alike, so that no cache knows any.
    """

    def __init__(self, seed: int) -> None:
        data = ASSISTANT.generate(seed=0, train_prompts=200, validation_prompts=10, test_prompts=10)
        self._rng = np.random.default_rng(seed)
        self._texts: Sequence[str] = [prompt.text for prompt in data.prompts]
        self._made = 0

    def draw(self, count: int) -> list[str]:
        """The next prompts."""
        first, self._made = self._made, self._made + count
        chosen = self._rng.integers(len(self._texts), size=count)
        return [f"{self._texts[i]} ({number})" for number, i in enumerate(chosen, start=first)]
