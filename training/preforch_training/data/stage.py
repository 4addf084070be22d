"""Stage `data`: prompts and preference pairs from one source, checked and split by prompt.

In:  a generated world, files, or Hugging Face datasets: pairs, rated responses, responses and a choice,
     prompts alone.
Out: `prompts.jsonl` (Prompt), `pairs.jsonl` (PreferencePair), and `rejected.jsonl` where bad rows are
     skipped. The manifest holds a `DataReport`.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from preforch_models.conversation import Message

from preforch_training.data.config import Config
from preforch_training.data.reading import read_sources, source_hashes
from preforch_training.data.report import DataReport, SourceCounts, report_lines, warnings_of
from preforch_training.data.rows.record import RowPair
from preforch_training.data.splits import Placed, first_turn, messages_json, plain_words
from preforch_training.data.truncation import Reader, measure
from preforch_training.data.writing import DataWriter
from preforch_training.demo.worlds import WORLDS
from preforch_training.records import OVERALL
from preforch_training.run import PAIRS_FILE, PROMPTS_FILE, Outcome, Run


def build(run: Run, config: Config, *, learned: Sequence[str], readers: Sequence[Reader]) -> None:
    """Make `data/`. `learned`: the objectives whose rewards are learned from pairs; the others need none.
    `readers`: the models that will read the texts."""

    def make(folder: Path, work: Path) -> Outcome:
        keep_rejected = config.on_bad_record == "skip"
        with DataWriter(folder, work / "index.sqlite", keep_rejected=keep_rejected) as writer:
            if config.world is None:
                read = read_sources(writer, config, run.names, seed=run.seed)
            else:
                read = world_data(writer, config, config.world, run.names, seed=run.seed)
            repeats, leaks = writer.repeats(len(read)), writer.leaks()
        counts = writer.counts
        files = (PROMPTS_FILE, PAIRS_FILE)
        pairs = sum(count for name, count in counts.items() if name.startswith("pairs/"))
        truncations, unknown = measure(readers, folder, files, (counts["prompts"], pairs))
        report = DataReport(
            sources=tuple(
                found.report(duplicates=again, contradictions=both)
                for found, (again, both) in zip(read, repeats, strict=True)
            ),
            held_out_prompts=counts["prompts"] - counts["prompts/train"],
            leaks=leaks,
            truncations=tuple(truncations),
            unknown_readers=unknown,
        )
        for line in (*report_lines(report), *warnings_of(report.sources)):
            print(line, file=sys.stderr, flush=True)
        check_objectives_have_pairs(counts, learned, config)
        return Outcome(counts=count(counts), metrics={"report": report.model_dump(mode="json")})

    recipe = config.model_dump(mode="json") | {"objectives": list(run.names), "seed": run.seed}
    if config.world is None:
        recipe |= {"files": source_hashes(config)}
    else:
        recipe |= {"world": WORLDS[config.world].hash()}
    recipe |= {"readers": [reader.recipe for reader in readers]}
    run.make(run.data, kind="data", config=recipe, inputs={}, build=make)


def world_data(
    writer: DataWriter, settings: Config, world: str, objectives: Sequence[str], *, seed: int
) -> list[SourceCounts]:
    """The prompts and pairs of a world that has these objectives. The truth stays in the generator."""
    generated = WORLDS[world].generate(
        seed=seed,
        train_prompts=settings.train_prompts,
        validation_prompts=settings.validation_prompts,
        test_prompts=settings.test_prompts,
        objectives=objectives,
    )
    counts = SourceCounts(world)
    for prompt in generated.prompts:
        counts.rows += 1
        counts.prompt_lengths[len(prompt.text)] += 1
        messages = (Message(role="user", content=prompt.text),)
        plain = plain_words(first_turn(messages))
        writer.add_prompt(Placed(prompt.id, prompt.split, plain, messages_json(messages)), category="")
    for given in generated.pairs:
        counts.pairs[given.objective] += 1
        counts.response_lengths.update((len(given.chosen), len(given.rejected)))
        pair = RowPair(objective=given.objective, chosen=given.chosen, rejected=given.rejected)
        writer.add_pair(given.id, given.prompt_id, pair, split=given.split, source=world, number=0)
    return [counts]


def check_objectives_have_pairs(counts: Mapping[str, int], learned: Sequence[str], config: Config) -> None:
    """Raise ValueError naming the first of these objectives, or `overall`, without training or validation
    pairs, and the numbers that leave it without."""
    for name in (*learned, OVERALL):
        found = {split: counts[f"pairs/{name}/{split}"] for split in ("train", "validation", "test")}
        for split in ("train", "validation"):
            if not found[split]:
                have = ", ".join(f"{count} for {where}" for where, count in found.items())
                raise ValueError(
                    f"objective {name!r} has no {split} pairs ({have}); nothing can be learned from it or "
                    f"judged by it. There are {counts['prompts']} prompts, validation_share is "
                    f"{config.validation_share} and test_share {config.test_share}"
                )


def count(counts: Counter[str]) -> dict[str, int]:
    """Prompts by split, pairs by objective and split, rejected rows."""
    return {**dict(sorted((k, v) for k, v in counts.items() if "/" in k)), "rejected": counts["rejected"]}
