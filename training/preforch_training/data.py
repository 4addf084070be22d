"""Stage `data`: prompts and preference pairs from one source, checked and split by prompt.

In:  the demo generator, JSON Lines files, or a Hugging Face dataset with a column mapping.
Out: `prompts.jsonl` (Prompt), `pairs.jsonl` (PreferencePair), and `rejected.jsonl` where bad records are skipped.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from preforch_models.conversation import Message
from preforch_models.manifest import digest, sha256_of
from preforch_models.objectives import Record
from pydantic import Field

from preforch_training.demo import world
from preforch_training.records import OVERALL, PreferencePair, Prompt, RecordError, write_records
from preforch_training.run import Outcome, Run
from preforch_training.sources import Columns, hugging_face_rows, jsonl_rows, pair_of_row, split_of

if TYPE_CHECKING:
    from preforch_training.config import RunConfig


class Source(Record):
    """One file or dataset of pairs. Exactly one of `path` and `dataset` is given."""

    path: Path | None = None
    dataset: str | None = None
    """Hugging Face dataset id."""
    name: str | None = None
    """Configuration of the dataset (`data_dir` style names are passed as they are)."""
    revision: str = "main"
    dataset_split: str = "train"
    objective: str = OVERALL
    """What the pairs of this source compare: an objective, or `overall`. Ignored where a column says it."""
    columns: Columns = Columns()


class Config(Record):
    """`[data]`. Sizes of the demo count prompts; each test split gets `test_prompts`."""

    source: Literal["demo", "files"]
    sources: tuple[Source, ...] = ()
    root: Path = Path(".")
    """Relative `path`s of sources start here."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    on_bad_record: Literal["stop", "skip"] = "stop"
    train_prompts: int = 2000
    validation_prompts: int = 200
    test_prompts: int = 150


@dataclass
class Collected:
    """Data on its way to the files. Prompts by id."""

    prompts: dict[str, Prompt] = field(default_factory=dict)
    pairs: list[PreferencePair] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)


def build(run: Run, config: "RunConfig") -> None:
    """Make `data/`."""
    settings = config.data

    def make(folder: Path, work: Path) -> Outcome:
        del work
        collected = demo_data(settings, seed=run.seed) if settings.source == "demo" else read_sources(settings, config)
        check_objectives_have_pairs(collected.pairs, config.names)
        write_records(folder / "prompts.jsonl", collected.prompts.values())
        write_records(folder / "pairs.jsonl", collected.pairs)
        if settings.on_bad_record == "skip":
            lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in collected.rejected]
            (folder / "rejected.jsonl").write_text("".join(lines), encoding="utf-8")
        return Outcome(counts=count(collected))

    recipe = settings.model_dump(mode="json") | {"objectives": list(config.names), "seed": run.seed}
    if settings.source == "demo":
        recipe |= {"world": world.world_hash()}
    else:
        recipe |= {"files": source_hashes(settings)}
    run.make(run.data, kind="data", config=recipe, inputs={}, build=make)


def demo_data(settings: Config, *, seed: int) -> Collected:
    """The demo world's prompts and pairs. The truth stays in the generator."""
    generated = world.generate(
        seed=seed,
        train_prompts=settings.train_prompts,
        validation_prompts=settings.validation_prompts,
        test_prompts=settings.test_prompts,
    )
    collected = Collected()
    for prompt in generated.prompts:
        messages = (Message(role="user", content=prompt.text),)
        collected.prompts[prompt.id] = Prompt(id=prompt.id, messages=messages, split=prompt.split)
    for pair in generated.pairs:
        collected.pairs.append(
            PreferencePair(
                id=pair.id,
                prompt_id=pair.prompt_id,
                objective=pair.objective,
                chosen=pair.chosen,
                rejected=pair.rejected,
                split=pair.split,
                source="demo",
            )
        )
    return collected


def read_sources(settings: Config, config: "RunConfig") -> Collected:
    """All pairs of all sources. A bad record stops the stage or is kept aside, as the config says."""
    if not settings.sources:
        raise ValueError("[data] source = 'files' needs at least one entry in sources")
    collected = Collected()
    for number, source in enumerate(settings.sources):
        for where, row in rows_of(source, settings.root):
            try:
                messages, pair = pair_of_row(row, source.columns, objective=source.objective, names=config.names)
                prompt = add_prompt(collected, messages, settings)
                collected.pairs.append(
                    PreferencePair(
                        id=f"{number}-{where.rpartition(':')[2]}",
                        prompt_id=prompt.id,
                        objective=pair.objective,
                        chosen=pair.chosen,
                        rejected=pair.rejected,
                        split=prompt.split,
                        source=str(source.path or source.dataset),
                    )
                )
            except ValueError as error:
                if settings.on_bad_record == "stop":
                    raise RecordError(f"{where}: {error}") from error
                collected.rejected.append({"where": where, "reason": str(error), "row": row})
    return collected


def rows_of(source: Source, root: Path) -> Iterator[tuple[str, Any]]:
    """(where, row) of a source."""
    if (source.path is None) == (source.dataset is None):
        raise ValueError(f"a source needs exactly one of path and dataset, got {source.path} and {source.dataset}")
    if source.path is not None:
        return jsonl_rows(root / source.path)
    assert source.dataset is not None
    return hugging_face_rows(source.dataset, name=source.name, split=source.dataset_split, revision=source.revision)


def add_prompt(collected: Collected, messages: tuple[Message, ...], settings: Config) -> Prompt:
    """The prompt with these messages; its id is a hash of it, its split one of its first user turn."""
    prompt_id, split = split_of(messages, validation=settings.validation_share, test=settings.test_share)
    return collected.prompts.setdefault(prompt_id, Prompt(id=prompt_id, messages=messages, split=split))


def check_objectives_have_pairs(pairs: Iterable[PreferencePair], names: tuple[str, ...]) -> None:
    """Raise ValueError naming the first objective, or `overall`, without training or validation pairs."""
    found = Counter((pair.objective, pair.split) for pair in pairs)
    for name in (*names, OVERALL):
        for split in ("train", "validation"):
            if not found[name, split]:
                raise ValueError(f"objective {name!r} has no {split} pairs; its reward cannot be learned or judged")


def source_hashes(settings: Config) -> dict[str, str]:
    """sha256 of local files and folders, revision of datasets on the hub: what the stage's result depends on."""
    hashes = {}
    for source in settings.sources:
        if source.path is not None and (settings.root / source.path).is_file():
            hashes[str(source.path)] = sha256_of(settings.root / source.path)
        elif source.dataset is not None:
            folder = Path(source.dataset)
            files = {str(path): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}
            hashes[source.dataset] = digest(files) if folder.is_dir() else source.revision
    return hashes


def count(collected: Collected) -> dict[str, int]:
    """Prompts by split, pairs by objective and split, rejected records."""
    counts = Counter(f"prompts/{prompt.split}" for prompt in collected.prompts.values())
    counts.update(f"pairs/{pair.objective}/{pair.split}" for pair in collected.pairs)
    return {**dict(sorted(counts.items())), "rejected": len(collected.rejected)}
