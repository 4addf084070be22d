"""Reward models and orchestrators of two runs on the same data: paired differences on the same test pairs.

In:  folders of two runs whose stage `data` is the same. Orchestrators are judged by the first run's rewards.
Out: a Markdown table on stdout.

    python benchmarks/compare_runs.py runs/hh-cpu runs/hh-tuned
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from preforch_models.manifest import digest, read_manifest
from preforch_training.config import read_config
from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.pipeline import open_run
from preforch_training.records import Prompt, by_id
from preforch_training.reward.scoring import RunRewards
from preforch_training.run import Run
from preforch_training.scores.pairs import pair_rewards
from preforch_training.scores.table import read_calibration, read_scores
from preforch_training.statistics.bootstrap import Bootstrap, mean_interval
from preforch_training.statistics.markdown import table
from preforch_training.statistics.metrics import pair_hits, preference_hits


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table. Exits with a message where the runs have different data."""
    options = parse(argv)
    runs = [open_run(read_config(folder / "config.toml")) for folder in (options.first, options.second)]
    first, second = (digest(read_manifest(run.data).files) for run in runs)
    if first != second:
        raise SystemExit(
            f"{options.first} and {options.second} have different data; compare runs on the same"
        )
    print("\n".join(compare(runs, bootstrap=Bootstrap(options.seed, options.replicates))))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Two runs on the same data, judged on the same test pairs.")
    parser.add_argument("first", type=Path, help="folder of a run")
    parser.add_argument("second", type=Path, help="folder of a run with the same data")
    parser.add_argument("--replicates", type=int, default=1000, help="of the bootstrap over prompts")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser.parse_args(argv)


def compare(runs: Sequence[Run], *, bootstrap: Bootstrap) -> list[str]:
    """One row per objective, and one for the weights where both runs have an orchestrator."""
    prompts = by_id(runs[0].prompts())
    measured = []
    for name in runs[0].names:
        own = runs[0].pairs(name, "test")
        hits = [pair_hits(RunRewards(run).margins(name, prompts, own)) for run in runs]
        measured.append((f"pair accuracy {name}", [pair.prompt_id for pair in own], hits))
    if all(run.orchestrator.exists() for run in runs):
        measured.append(("preference accuracy of f(x)", *weight_hits(runs, prompts)))
    rows = []
    for what, ids, (ours, theirs) in measured:
        group_N = np.unique(ids, return_inverse=True)[1]
        shown = [mean_interval(hits, group_N, bootstrap=bootstrap) for hits in (ours, theirs, theirs - ours)]
        rows.append([what, len(ids), *shown])
    return table(["on test pairs", "pairs", "first", "second", "second minus first"], rows).splitlines()


def weight_hits(runs: Sequence[Run], prompts: dict[str, Prompt]) -> tuple[list[str], list[np.ndarray]]:
    """Prompt ids of overall test pairs, and whether each run's weights order them by the first's rewards."""
    scored = [entry for entry in read_scores(runs[0].scores) if entry.split == "test"]
    pairs = pair_rewards(scored, read_calibration(runs[0].scores), runs[0].names)
    asked = [entry.prompt_id for entry in scored if entry.side == "chosen"]
    texts = [prompts[prompt_id].text for prompt_id in asked]
    margin_NK = pairs.chosen_NK - pairs.rejected_NK
    return asked, [preference_hits(predict_weights(run.orchestrator, texts), margin_NK) for run in runs]


if __name__ == "__main__":
    main()
