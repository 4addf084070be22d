"""The records that stages hand to each other, and how they are read and written, one JSON object a line.

Objectives are named, never counted. Splits are by prompt: `train`, `validation`, and any number of tests
whose name starts with `test`.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

import numpy as np
from preforch_models.conversation import Message, conversation_text
from preforch_models.files import write_text, writing_file
from preforch_models.manifest import ArtifactError
from preforch_models.objectives import Record, explain
from pydantic import AfterValidator, Field, FiniteFloat, ValidationError

OVERALL = "overall"
Side = Literal["chosen", "rejected"]


def _check_split(split: str) -> str:
    if split not in ("train", "validation") and not split.startswith("test"):
        raise ValueError(
            f"split {split!r}: allowed are 'train', 'validation', and names that start with 'test'"
        )
    return split


Split = Annotated[str, AfterValidator(_check_split)]
Text = Annotated[str, Field(min_length=1)]


class RecordError(ValueError):
    """A record that cannot be read; the message names file, line and field."""


class Prompt(Record):
    """What the model is asked. The messages end with, or at least contain, a user turn."""

    id: Text
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    split: Split
    category: str = ""
    """What kind of prompt this is. For the report only; nothing that is trained reads it."""

    @property
    def text(self) -> str:
        """What the orchestrator and the reward models read."""
        return conversation_text(self.messages)


class PreferencePair(Record):
    """`chosen` was preferred to `rejected` under one objective, or overall."""

    id: Text
    prompt_id: Text
    objective: Text
    chosen: Text
    rejected: Text
    split: Split
    source: str = ""


class ScoredResponse(Record):
    """Raw rewards of one response of an overall pair. `fold`: that of the models used, None for the full
    ones."""

    prompt_id: Text
    pair_id: Text
    side: Side
    response: Text
    rewards: dict[str, FiniteFloat]
    fold: int | None
    split: Split


class Sample(Record):
    """One response that the policy gave while it saw `weights`. Rewards are calibrated.

    `finished`: the policy ended it, the token limit did not.
    """

    prompt_id: Text
    weights: dict[str, float]
    response: str
    token_ids: tuple[int, ...]
    finished: bool
    rewards: dict[str, FiniteFloat]
    kept: bool
    origin: Literal["orchestrator", "constant", "random"]


R = TypeVar("R", bound=Record)


def parse_line(line: str | bytes, model: type[R], *, where: str) -> R:
    """One record from one line of JSON. Raises RecordError that starts with `where`."""
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        raise RecordError(f"{where}: {explain(error)}") from error


def each_record(path: Path, model: type[R]) -> Iterator[R]:
    """The records of a file, one after the other. Raises RecordError naming file and line."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            yield parse_line(line, model, where=f"{path}:{number}")


def read_records(path: Path, model: type[R]) -> list[R]:
    """All records of a file. Raises RecordError naming file and line."""
    return list(each_record(path, model))


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records, all of them or no file."""
    with writing_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record.model_dump(mode="json"), ensure_ascii=False) + "\n")


def write_record(path: Path, record: Record) -> None:
    """One record as a JSON file of its own, readable, whole or not at all."""
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_record(path: Path, model: type[R]) -> R:
    """The record of a JSON file. Raises ArtifactError naming file and field."""
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{path}: {explain(error)}") from error


def by_id(prompts: Iterable[Prompt]) -> dict[str, Prompt]:
    """Prompts by id."""
    return {prompt.id: prompt for prompt in prompts}


def unique_responses(pairs: Iterable[PreferencePair]) -> Iterator[tuple[str, str]]:
    """Distinct (prompt id, response) of the pairs, in order of first appearance."""
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        for response in (pair.chosen, pair.rejected):
            key = (pair.prompt_id, response)
            if key not in seen:
                seen.add(key)
                yield key


T = TypeVar("T")
_PIECE = 1 << 16
"""Numbers."""


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last with what is left."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def keys_of(ids: Iterable[str]) -> np.ndarray:
    """A whole number for each id, (N,), the same one as long as the process lives."""
    return np.fromiter(map(hash, ids), dtype=np.int64)


class Numbers:
    """Many numbers that come one after the other, whole ones ("q") or others ("d"), in pieces of one size: an
    array that grows is moved again and again, and the holes it leaves are more than itself."""

    def __init__(self, kind: Literal["q", "d"]) -> None:
        self._kind, self._pieces, self._last = kind, list[np.ndarray](), array(kind)

    def add(self, *values: Any) -> None:
        """Behind the others."""
        self._last.extend(values)
        if len(self._last) >= _PIECE:
            self._pieces.append(np.array(self._last))
            self._last = array(self._kind)

    def array(self) -> np.ndarray:
        """All of them, (N,); afterwards they are in this one piece."""
        whole: np.ndarray = np.concatenate([*self._pieces, np.array(self._last, dtype=self._kind)])
        self._pieces, self._last = [whole], array(self._kind)
        return whole


def first_places(keys_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each key first occurs, in that order, (U,), and which of these every key is, (N,). The order does
    not depend on what the keys are: Python salts its hashes anew in every process."""
    _, first_U, which_N = np.unique(keys_N, return_index=True, return_inverse=True)
    order_U = np.argsort(first_U)
    return first_U[order_U], np.argsort(order_U)[which_N]


class StoredPrompts:
    """The prompts of a file by id, read when they are asked for: 16 bytes of memory each."""

    def __init__(self, path: Path) -> None:
        """Raises RecordError naming file and line."""
        keys, offsets, offset = Numbers("q"), Numbers("q"), 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                prompt = parse_line(line, Prompt, where=f"{path}:{number}")
                keys.add(hash(prompt.id))
                offsets.add(offset)
                offset += len(line)
        order = np.argsort(keys.array())
        self._path, self._keys, self._offsets = path, keys.array()[order], offsets.array()[order]
        if (self._keys[1:] == self._keys[:-1]).any():
            raise RecordError(f"{path}: two prompts have the same id")

    def of(self, ids: Iterable[str]) -> list[Prompt]:
        """The prompts with these ids, in their order. Raises RecordError for one that is not there."""
        return list(_prompts_at(self._path, self._find(keys_of(ids))))

    def texts(self, key_N: np.ndarray) -> "StoredTexts":
        """`Prompt.text` of those with these keys (`keys_of` their ids), in their order. Raises RecordError
        for one that is not there."""
        return StoredTexts(self._path, self._find(key_N))

    def _find(self, key_N: np.ndarray) -> np.ndarray:
        """Where in the file the prompts begin, (N,)."""
        place_N = np.searchsorted(self._keys, key_N).clip(max=max(len(self._keys) - 1, 0))
        if len(key_N) and not (len(self._keys) and (self._keys[place_N] == key_N).all()):
            raise RecordError(f"{self._path}: lacks the prompt of a pair")
        return np.asarray(self._offsets[place_N])


class StoredTexts(Sequence[str]):
    """Texts of prompts, read from their file when they are asked for."""

    def __init__(self, path: Path, offset_N: np.ndarray) -> None:
        self._path, self._offset_N = path, offset_N

    def __len__(self) -> int:
        return len(self._offset_N)

    def __iter__(self) -> Iterator[str]:
        return (prompt.text for prompt in _prompts_at(self._path, self._offset_N))

    @overload
    def __getitem__(self, which: int) -> str: ...

    @overload
    def __getitem__(self, which: slice) -> "StoredTexts": ...

    def __getitem__(self, which: int | slice) -> "str | StoredTexts":
        if isinstance(which, slice):
            return StoredTexts(self._path, self._offset_N[which])
        return next(iter(StoredTexts(self._path, self._offset_N[[which]])))


def _prompts_at(path: Path, offset_N: np.ndarray) -> Iterator[Prompt]:
    with path.open("rb") as file:
        for offset in offset_N.tolist():
            file.seek(offset)
            yield parse_line(file.readline(), Prompt, where=f"{path}, byte {offset}")
