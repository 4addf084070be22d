"""Stage `data`: prompts and preference pairs from one source, checked and split by prompt.

In:  the demo generator, JSON Lines files, or a Hugging Face dataset with a column mapping: pairs, or rated
     responses.
Out: `prompts.jsonl` (Prompt), `pairs.jsonl` (PreferencePair), and `rejected.jsonl` where bad records are
     skipped.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from preforch_models.conversation import Message

from preforch_training.data.config import Config
from preforch_training.data.reading import Collected, read_sources, source_hashes
from preforch_training.demo import world
from preforch_training.records import OVERALL, PreferencePair, Prompt, write_records
from preforch_training.run import PAIRS_FILE, PROMPTS_FILE, Outcome, Run


def build(run: Run, config: Config, *, learned: Sequence[str]) -> None:
    """Make `data/`. `learned`: the objectives whose rewards are learned from pairs; the others need none."""

    def make(folder: Path, work: Path) -> Outcome:
        del work
        if config.source == "demo":
            collected = demo_data(config, seed=run.seed)
        else:
            collected = read_sources(config, run.names, seed=run.seed)
        check_objectives_have_pairs(collected.pairs, learned)
        write_records(folder / PROMPTS_FILE, collected.prompts.values())
        write_records(folder / PAIRS_FILE, collected.pairs)
        if config.on_bad_record == "skip":
            # Escaped, because what a row was rejected for may be text that has no UTF-8.
            lines = [json.dumps(entry) + "\n" for entry in collected.rejected]
            (folder / "rejected.jsonl").write_text("".join(lines), encoding="utf-8")
        return Outcome(counts=count(collected))

    recipe = config.model_dump(mode="json") | {"objectives": list(run.names), "seed": run.seed}
    if config.source == "demo":
        recipe |= {"world": world.world_hash()}
    else:
        recipe |= {"files": source_hashes(config)}
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


def check_objectives_have_pairs(pairs: Iterable[PreferencePair], learned: Sequence[str]) -> None:
    """Raise ValueError naming the first of these objectives, or `overall`, without training or validation
    pairs."""
    found = Counter((pair.objective, pair.split) for pair in pairs)
    for name in (*learned, OVERALL):
        for split in ("train", "validation"):
            if not found[name, split]:
                raise ValueError(
                    f"objective {name!r} has no {split} pairs; nothing can be learned from it or judged by it"
                )


def count(collected: Collected) -> dict[str, int]:
    """Prompts by split, pairs by objective and split, rejected records."""
    counts = Counter(f"prompts/{prompt.split}" for prompt in collected.prompts.values())
    counts.update(f"pairs/{pair.objective}/{pair.split}" for pair in collected.pairs)
    return {**dict(sorted(counts.items())), "rejected": len(collected.rejected)}
