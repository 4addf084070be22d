"""Stage `data`: prompts and preference pairs from one source, checked and split by prompt.

In:  the demo generator, JSON Lines files, or a Hugging Face dataset with a column mapping: pairs, or rated responses.
Out: `prompts.jsonl` (Prompt), `pairs.jsonl` (PreferencePair), and `rejected.jsonl` where bad records are skipped.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from preforch_models.conversation import Message
from preforch_models.objectives import Record
from pydantic import Field

from preforch_training.data.reading import Collected, Source, read_sources, source_hashes
from preforch_training.demo import world
from preforch_training.records import OVERALL, PreferencePair, Prompt, write_records
from preforch_training.run import Outcome, Run

if TYPE_CHECKING:
    from preforch_training.config import RunConfig


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


def build(run: Run, config: "RunConfig") -> None:
    """Make `data/`."""
    settings = config.data

    def make(folder: Path, work: Path) -> Outcome:
        del work
        collected = (
            demo_data(settings, seed=run.seed)
            if settings.source == "demo"
            else read_sources(settings, config)
        )
        check_objectives_have_pairs(collected.pairs, config.names)
        write_records(folder / "prompts.jsonl", collected.prompts.values())
        write_records(folder / "pairs.jsonl", collected.pairs)
        if settings.on_bad_record == "skip":
            # Escaped, because what a row was rejected for may be text that has no UTF-8.
            lines = [json.dumps(entry) + "\n" for entry in collected.rejected]
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


def check_objectives_have_pairs(pairs: Iterable[PreferencePair], names: tuple[str, ...]) -> None:
    """Raise ValueError naming the first objective, or `overall`, without training or validation pairs."""
    found = Counter((pair.objective, pair.split) for pair in pairs)
    for name in (*names, OVERALL):
        for split in ("train", "validation"):
            if not found[name, split]:
                raise ValueError(
                    f"objective {name!r} has no {split} pairs; its reward cannot be learned or judged"
                )


def count(collected: Collected) -> dict[str, int]:
    """Prompts by split, pairs by objective and split, rejected records."""
    counts = Counter(f"prompts/{prompt.split}" for prompt in collected.prompts.values())
    counts.update(f"pairs/{pair.objective}/{pair.split}" for pair in collected.pairs)
    return {**dict(sorted(counts.items())), "rejected": len(collected.rejected)}
