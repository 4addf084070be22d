"""Sources into prompts and pairs: every row checked, every prompt on its side of the split.

In:  `[data]`'s sources, pairs or rated responses. Out: `Collected`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from preforch_models.manifest import digest, sha256_of

from preforch_training.data.config import Config, Source
from preforch_training.data.ratings import Rated, rated_of_row, rated_pairs
from preforch_training.data.rows import (
    RowPair,
    RowPrompt,
    check_compared,
    each_row,
    hugging_face_rows,
    jsonl_rows,
    pair_of_row,
    prompt_of_row,
)
from preforch_training.data.splits import split_of
from preforch_training.records import PreferencePair, Prompt, RecordError

T = TypeVar("T")


@dataclass
class Collected:
    """Data on its way to the files. Prompts by id."""

    prompts: dict[str, Prompt] = field(default_factory=dict)
    pairs: list[PreferencePair] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)


def read_sources(config: Config, names: tuple[str, ...], *, seed: int) -> Collected:
    """All pairs of all sources. A bad record stops the stage or is kept aside, as the config says."""
    if not config.sources:
        raise ValueError("[data] source = 'files' needs at least one entry in sources")
    collected = Collected()
    for number, source in enumerate(config.sources):
        if source.ratings:
            read_ratings(collected, source, config, names, number=number, seed=seed)
        else:
            read_pairs(collected, source, config, names, number=number)
    return collected


def read_pairs(
    collected: Collected, source: Source, config: Config, names: tuple[str, ...], *, number: int
) -> None:
    """Add the pairs of a source whose rows are pairs."""

    def parse(row: Any) -> tuple[RowPrompt, RowPair]:
        prompt = prompt_of_row(row, source.columns, category=source.category)
        return prompt, pair_of_row(row, source.columns, objective=source.objective, names=names)

    for where, (asked, pair) in good_rows(collected, source, config, parse):
        prompt = add_prompt(collected, asked, config)
        add_pair(collected, f"{number}-{where.rpartition(':')[2]}", pair, prompt=prompt, source=source)


def read_ratings(
    collected: Collected, source: Source, config: Config, names: tuple[str, ...], *, number: int, seed: int
) -> None:
    """Add the pairs that the rated responses of a source make, prompt by prompt."""
    for objective in source.ratings:
        check_compared(objective, names)

    def parse(row: Any) -> tuple[RowPrompt, Rated]:
        prompt = prompt_of_row(row, source.columns, category=source.category)
        return prompt, rated_of_row(row, column=source.columns.response, ratings=source.ratings)

    pools: dict[str, list[Rated]] = {}
    for _, (asked, rated) in good_rows(collected, source, config, parse):
        pools.setdefault(add_prompt(collected, asked, config).id, []).append(rated)
    for prompt_id, pool in pools.items():
        pairs = rated_pairs(
            pool,
            prompt_id=prompt_id,
            overall=source.overall,
            min_gap=source.min_gap,
            limit=source.pairs_per_prompt,
            seed=seed,
        )
        for key, pair in pairs.items():
            add_pair(collected, f"{number}-{key}", pair, prompt=collected.prompts[prompt_id], source=source)


def good_rows(
    collected: Collected, source: Source, config: Config, parse: Callable[[Any], T]
) -> Iterator[tuple[str, T]]:
    """(where, parsed row) of a source. A row that `parse` refuses stops the stage or is kept aside."""
    for where, row in rows_of(source, config.root):
        try:
            parsed = parse(row)
        except ValueError as error:
            if config.on_bad_record == "stop":
                raise RecordError(f"{where}: {error}") from error
            collected.rejected.append({"where": where, "reason": str(error), "row": row})
        else:
            yield where, parsed


def rows_of(source: Source, root: Path) -> Iterator[tuple[str, Any]]:
    """(where, row) of a source."""
    if (source.path is None) == (source.dataset is None):
        raise ValueError(
            f"a source needs exactly one of path and dataset, got {source.path} and {source.dataset}"
        )
    if source.path is not None:
        rows = jsonl_rows(root / source.path)
    else:
        assert source.dataset is not None
        rows = hugging_face_rows(
            source.dataset, name=source.name, split=source.dataset_split, revision=source.revision
        )
    return rows if source.each is None else each_row(rows, source.each)


def add_prompt(collected: Collected, asked: RowPrompt, config: Config) -> Prompt:
    """The prompt with these messages; its id is a hash of it, its split one of its first user turn. The first
    source that brings it names its category."""
    prompt_id, split = split_of(asked.messages, validation=config.validation_share, test=config.test_share)
    prompt = Prompt(id=prompt_id, messages=asked.messages, split=split, category=asked.category)
    return collected.prompts.setdefault(prompt_id, prompt)


def add_pair(collected: Collected, pair_id: str, pair: RowPair, *, prompt: Prompt, source: Source) -> None:
    """Add one pair of a source, on its prompt's side of the split."""
    collected.pairs.append(
        PreferencePair(
            id=pair_id,
            prompt_id=prompt.id,
            objective=pair.objective,
            chosen=pair.chosen,
            rejected=pair.rejected,
            split=prompt.split,
            source=str(source.path or source.dataset),
        )
    )


def source_hashes(config: Config) -> dict[str, str]:
    """sha256 of local files and folders, revision of datasets on the hub: what the stage's result depends
    on."""
    hashes = {}
    for source in config.sources:
        if source.path is not None and (config.root / source.path).is_file():
            hashes[str(source.path)] = sha256_of(config.root / source.path)
        elif source.dataset is not None:
            folder = Path(source.dataset)
            files = {str(path): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}
            hashes[source.dataset] = digest(files) if folder.is_dir() else source.revision
    return hashes
