"""The stages `scores` and `orchestrator` on many pairs whose vectors are there: seconds and memory of each,
as the run's manifests have them.

In:  numbers of overall pairs. Out: a Markdown table on stdout; with `--plot FILE` both over the number of
     pairs.

    python benchmarks/many_pairs.py --pairs 10000 100000 1000000 --plot many_pairs.png

Every prompt is another, of one of two kinds; the vectors say the kind and how helpful and harmless a response
is, with noise, so that there is something to learn. No text is encoded: that takes the encoder's time, which
`encode.py` measures.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from preforch_models.manifest import read_manifest
from preforch_training.embeddings.vectors import MINILM, EncoderSettings, TextVectors

NAMES = ("helpful", "harmless")
SIZE = 384
"""Of MiniLM's vectors."""
MAX_TOKENS = 256
REWARD_PAIRS = 4000
"""Of each objective: what its reward is fitted to is no part of the measurement."""
WRITTEN_AT_ONCE = 5000
KIND_WEIGHTS = np.array([[0.8, 0.2], [0.2, 0.8]])
WORDS = [f"word{number}" for number in range(5000)]
STAGES = ("scores", "orchestrator")
CONFIG = """
preset = "recommended"
objectives = [
    {{name = "helpful", description = "helps"}},
    {{name = "harmless", description = "harms nobody"}},
]

[run]
folder = "{folder}/run"
seed = 1

[data]
source = "files"
root = "{folder}"
validation_share = 0.05
test_share = 0.05
sources = [{{path = "pairs.jsonl", columns = {{objective = "objective"}}}}]

[reward.helpful]
kind = "pair_head"
encoder = "{encoder}"
max_tokens = {max_tokens}

[reward.harmless]
kind = "pair_head"
encoder = "{encoder}"
max_tokens = {max_tokens}

[orchestrator]
encoder = "{encoder}"
max_tokens = {max_tokens}
train_encoder = false
"""


@dataclass(frozen=True)
class Cost:
    """Of one stage."""

    seconds: float
    mib: float


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Stages scores and orchestrator on many pairs.")
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--seed", type=int, default=0, help="of words and vectors")
    parser.add_argument("--plot", type=Path, help="a picture of seconds and memory over the number of pairs")
    options = parser.parse_args(argv)
    found: dict[int, dict[str, Cost]] = {}
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory() as folder:
            found[pairs] = measure(Path(folder), pairs, seed=options.seed)
    print("\n".join(table(found)))
    if options.plot:
        plot(found, options.plot)


def measure(folder: Path, pairs: int, *, seed: int) -> dict[str, Cost]:
    """Build the run up to the stages, then those, each stage in a process of its own."""
    config = folder / "run.toml"
    config.write_text(CONFIG.format(folder=folder, encoder=MINILM, max_tokens=MAX_TOKENS), encoding="utf-8")
    write_pairs(folder, pairs, seed=seed)
    for stage in ("data", "reward", *STAGES):
        command = [str(Path(sys.executable).with_name("preforch")), "train", stage, str(config)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"stage {stage} of {pairs} pairs failed:\n{done.stderr[-2000:]}")
    manifests = {stage: read_manifest(folder / "run" / stage) for stage in STAGES}
    return {stage: Cost(found.seconds, found.peak_memory_mib) for stage, found in manifests.items()}


def write_pairs(folder: Path, pairs: int, *, seed: int) -> None:
    """The file of pairs, about 1 KB a row, and the vectors of its texts."""
    rng = np.random.default_rng(seed)
    vectors = TextVectors(EncoderSettings(MINILM, "mean", MAX_TOKENS), folder / "run" / "encoder_cache")
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as lines:
        for numbers, objective in batches(pairs):
            texts = [[f"{i} {words(rng, 20)}" for i in numbers]]
            texts += [[words(rng, 40) for _ in numbers] for _ in range(2)]
            kind_N = rng.integers(0, 2, len(numbers))
            qualities = rng.normal(size=(2, len(numbers), len(NAMES)))
            for side, vectors_ND in zip(texts, text_vectors(rng, kind_N, qualities), strict=True):
                vectors.keep(side, vectors_ND)
            gain_N = ((qualities[0] - qualities[1]) * weights_of(objective, kind_N)).sum(axis=1)
            for prompt, one, other, gain in zip(*texts, gain_N, strict=True):
                chosen, rejected = (one, other) if gain + rng.logistic() / 4 > 0 else (other, one)
                row = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "objective": objective}
                lines.write(json.dumps(row) + "\n")


def batches(pairs: int) -> Iterator[tuple[range, str]]:
    """Numbers of rows and their objective."""
    start = 0
    for objective, count in (*((name, REWARD_PAIRS) for name in NAMES), ("overall", pairs)):
        for first in range(start, start + count, WRITTEN_AT_ONCE):
            yield range(first, min(first + WRITTEN_AT_ONCE, start + count)), objective
        start += count


def words(rng: np.random.Generator, count: int) -> str:
    """Random ones."""
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), count))


def weights_of(objective: str, kind_N: np.ndarray) -> np.ndarray:
    """What counts in a choice, (N, K)."""
    if objective == "overall":
        return np.asarray(KIND_WEIGHTS[kind_N])
    return np.eye(len(NAMES))[[NAMES.index(objective)] * len(kind_N)]


def text_vectors(rng: np.random.Generator, kind_N: np.ndarray, qualities: np.ndarray) -> list[np.ndarray]:
    """Of prompts and of both responses, (N, D) each: the first numbers say kind or qualities."""
    found = rng.normal(size=(3, len(kind_N), SIZE)).astype(np.float32)
    found[0, :, 0] += 4 * kind_N - 2
    found[1:, :, : len(NAMES)] += 2 * qualities
    return list(found / np.linalg.norm(found, axis=-1, keepdims=True))


def table(found: dict[int, dict[str, Cost]]) -> list[str]:
    """Seconds and peak memory of every stage by size."""
    lines = [
        f"{os.cpu_count()} cores, Python {platform.python_version()}, D = {SIZE}",
        "",
        "| overall pairs | stage | seconds | pairs/s | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for pairs, stages in found.items():
        for stage, cost in stages.items():
            lines.append(
                f"| {pairs:,} | {stage} | {cost.seconds:.0f} | {pairs / cost.seconds:,.0f} | {cost.mib:.0f} |"
            )
    return lines


def plot(found: dict[int, dict[str, Cost]], file: Path) -> None:
    """Seconds and memory over pairs."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for stage in STAGES:
        costs = [stages[stage] for stages in found.values()]
        axes[0].plot(list(found), [cost.seconds for cost in costs], marker="o", label=stage)
        axes[1].plot(list(found), [cost.mib for cost in costs], marker="o", label=stage)
    axes[0].set(xlabel="overall pairs", ylabel="seconds", xscale="log", yscale="log")
    axes[1].set(xlabel="overall pairs", ylabel="peak memory, MiB", xscale="log")
    axes[1].set_ylim(bottom=0)
    axes[0].legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
