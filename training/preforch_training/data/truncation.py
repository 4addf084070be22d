"""What models with a token limit do not read of the data.

In:  the data's files, and who reads them: a tokenizer, a limit, which texts. Out: `Truncation`s.
Many records are sampled evenly: every second one, every third.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig, AutoTokenizer

from preforch_training.data.report import Truncation
from preforch_training.embeddings.batching import token_limit
from preforch_training.embeddings.vectors import encoder_path
from preforch_training.records import PreferencePair, Prompt, by_id

SAMPLE = 20_000
"""Prompts, and pairs, that are looked at."""
BATCH = 1000
WHOLE = 10**9
"""More tokens than a text has."""

ReadTokens = Callable[[Any, Sequence[Prompt], Sequence[str], int], list[list[int]]]
"""(tokenizer, prompts, responses, limit) -> token ids of what a model reads of both joined."""


@dataclass(frozen=True)
class Reader:
    """A model that reads prompts, or prompts and responses apart, or both joined (`tokens`)."""

    key: str
    """Where the configuration names it."""
    model: str
    revision: str
    max_tokens: int
    reads: Literal["prompts", "apart", "joined"]
    tokens: ReadTokens | None = None

    @property
    def recipe(self) -> list[Any]:
        """What the counts depend on."""
        return [self.key, self.model, self.revision, self.max_tokens, self.reads]


def measure(
    readers: Sequence[Reader], folder: Path, names: tuple[str, str], counts: tuple[int, int]
) -> tuple[list[Truncation], dict[str, str]]:
    """What each reader cuts, and why that is not known of some. `names` and `counts`: files of prompts and of
    pairs, and their records. Raises ValueError for a conversation that a reader's template refuses."""
    found, unknown = [], {}
    for reader in readers:
        try:
            path = encoder_path(reader.model)
            tokenizer = AutoTokenizer.from_pretrained(path, revision=reader.revision)
            config = AutoConfig.from_pretrained(path, revision=reader.revision)
        # Whatever a hub or a folder says: the stage that needs the model will say it again.
        except (OSError, ValueError, KeyError, TypeError) as error:
            unknown[reader.key] = f"{reader.model}: {str(error).strip().partition(chr(10))[0]}"
            continue
        limit = token_limit(tokenizer, config, reader.max_tokens)
        try:
            found.append(_measure(reader, tokenizer, limit, folder, names, counts))
        except ValueError as error:
            raise ValueError(f"{reader.key}: {error}") from error
    return found, unknown


def _measure(
    reader: Reader,
    tokenizer: Any,
    limit: int,
    folder: Path,
    names: tuple[str, str],
    counts: tuple[int, int],
) -> Truncation:
    texts = cut = seen = identical = 0
    if reader.reads != "joined":
        for batch in _batches(_sample(folder / names[0], counts[0])):
            asked = [Prompt.model_validate(entry).text for entry in batch]
            texts += len(asked)
            cut += sum(len(ids) > limit for ids in _ids(tokenizer, asked))
    if reader.reads == "prompts":
        return Truncation(
            reader=reader.key, max_tokens=limit, texts=texts, truncated=cut, pairs=0, identical=0
        )
    wanted = (
        {entry["prompt_id"] for entry in _sample(folder / names[1], counts[1])} if reader.tokens else set()
    )
    prompts = _prompts(folder / names[0], wanted)
    for batch in _batches(_sample(folder / names[1], counts[1])):
        pairs = [PreferencePair.model_validate(entry) for entry in batch]
        whole = [_tokens(reader, tokenizer, prompts, pairs, side, WHOLE) for side in ("chosen", "rejected")]
        read = [_tokens(reader, tokenizer, prompts, pairs, side, limit) for side in ("chosen", "rejected")]
        seen += len(pairs)
        texts += 2 * len(pairs)
        cut += sum(len(ids) > limit for side in whole for ids in side)
        identical += sum(one == other for one, other in zip(*read, strict=True))
    return Truncation(
        reader=reader.key, max_tokens=limit, texts=texts, truncated=cut, pairs=seen, identical=identical
    )


def _tokens(
    reader: Reader,
    tokenizer: Any,
    prompts: dict[str, Prompt],
    pairs: Sequence[PreferencePair],
    side: Literal["chosen", "rejected"],
    limit: int,
) -> list[list[int]]:
    """Token ids of one side of pairs, cut as the reader cuts them."""
    responses = [getattr(pair, side) for pair in pairs]
    if reader.tokens is not None:
        return reader.tokens(tokenizer, [prompts[pair.prompt_id] for pair in pairs], responses, limit)
    return _ids(tokenizer, responses, limit=limit)


def _ids(tokenizer: Any, texts: list[str], *, limit: int = WHOLE) -> list[list[int]]:
    cut = {} if limit == WHOLE else {"truncation": True, "max_length": limit}
    ids: list[list[int]] = tokenizer(texts, verbose=False, **cut)["input_ids"]
    return ids


def _prompts(path: Path, wanted: set[str]) -> dict[str, Prompt]:
    """The prompts with these ids."""
    if not wanted:
        return {}
    with path.open(encoding="utf-8") as file:
        found = (json.loads(line) for line in file)
        return by_id(Prompt.model_validate(entry) for entry in found if entry["id"] in wanted)


def _sample(path: Path, count: int) -> Iterator[dict[str, Any]]:
    """Every record of a file, or every second, third, ... of many."""
    step = -(-count // SAMPLE) or 1
    with path.open(encoding="utf-8") as file:
        for line in islice(file, 0, None, step):
            yield json.loads(line)


def _batches(records: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(records, BATCH)):
        yield batch
