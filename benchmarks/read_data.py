"""Reading preference data: the stage `data` against `datasets` iterating the same file, each in a process of
its own.

In:  sizes. Out: a Markdown table on stdout: rows a second and peak memory of each way, and their ratio; with
     `--plot FILE` both over the number of rows.

    python benchmarks/read_data.py --rows 10000 100000 1000000 --repeats 3 --plot read_data.png
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import numpy as np
from preforch_training.run import peak_memory_mib
from rounds import ratio

NAMES = ("helpful", "harmless")
WORDS = [f"word{number}" for number in range(5000)]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; as `--way`, measure one way and print JSON."""
    options = parse(argv)
    if options.way:
        print(json.dumps(measure(WAYS[options.way], options.file)))
        return
    found: dict[int, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for rows in options.rows:
            file = Path(folder) / f"{rows}.jsonl"
            write_pairs(file, rows, seed=options.seed)
            found[rows] = in_turns(file, repeats=options.repeats)
            file.unlink()
    print("\n".join(table(found)))
    if options.plot:
        plot(found, options.plot)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Reading preference data: the stage data against datasets.")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each way, in turns; at least 2")
    parser.add_argument("--seed", type=int, default=0, help="of the words")
    parser.add_argument("--plot", type=Path, help="a picture of rates and memory over the number of rows")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.repeats < 2:
        parser.error(f"--repeats is {options.repeats}; an interval needs at least 2")
    return options


def write_pairs(file: Path, rows: int, *, seed: int) -> None:
    """Pairs of random words, about 1 KB a row, every prompt another."""
    rng = random.Random(seed)

    def text(count: int) -> str:
        return " ".join(rng.choices(WORDS, k=count))

    with file.open("w", encoding="utf-8") as lines:
        for number in range(rows):
            row = {"prompt": f"{number} {text(20)}", "chosen": text(40), "rejected": text(40)}
            lines.write(json.dumps(row | {"objective": ("overall", *NAMES)[number % 3]}) + "\n")


# The ways.


def our_stage(file: Path, folder: Path) -> int:
    """Read, check, split, count and write, as the stage does."""
    from preforch_training.data.config import Config
    from preforch_training.data.reading import read_sources
    from preforch_training.data.writing import DataWriter

    source = {"path": file.name, "columns": {"objective": "objective"}}
    config = Config.model_validate({"source": "files", "root": file.parent, "sources": [source]})
    with DataWriter(folder, folder / "index.sqlite", keep_rejected=False) as writer:
        (counts,) = read_sources(writer, config, NAMES, seed=0)
        writer.repeats(1)
        writer.leaks()
    return counts.rows


def our_reading(file: Path, folder: Path) -> int:
    """Read and check alone."""
    from preforch_training.data.config import Source
    from preforch_training.data.files import rows_of
    from preforch_training.data.rows.pairs import read_pairs
    from preforch_training.data.rows.record import open_row

    del folder
    source = Source.model_validate({"path": file.name, "columns": {"objective": "objective"}})
    rows = (read_pairs(open_row(row, source), source, NAMES) for _, row in rows_of(source, file.parent))
    return sum(1 for _ in rows)


def datasets_stored(file: Path, folder: Path) -> int:
    """`load_dataset`, which stores the rows as Arrow first, and one pass over it."""
    rows = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder))
    return sum(1 for _ in rows)


def datasets_streaming(file: Path, folder: Path) -> int:
    """One pass over the file as it is read."""
    rows = datasets.load_dataset(
        "json", data_files=str(file), split="train", cache_dir=str(folder), streaming=True
    )
    return sum(1 for _ in rows)


Way = Callable[[Path, Path], int]
WAYS: dict[str, Way] = {
    "stage data": our_stage,
    "its reading and checking alone": our_reading,
    "datasets, stored": datasets_stored,
    "datasets, streaming": datasets_streaming,
}


def measure(way: Way, file: Path) -> dict[str, float]:
    """Seconds and the peak of resident memory, MiB, of one pass in this process; imports come before."""
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        way(_few(file, Path(folder)), Path(folder))
        start, before = time.monotonic(), peak_memory_mib()
        (Path(folder) / "out").mkdir()
        rows = way(file, Path(folder) / "out")
        return {
            "rows": rows,
            "seconds": time.monotonic() - start,
            "mib": peak_memory_mib() - before,
        }


def _few(file: Path, folder: Path) -> Path:
    """The first rows: what a way imports and prepares is not measured."""
    with file.open(encoding="utf-8") as lines:
        (folder / "few.jsonl").write_text("".join(next(lines) for _ in range(3)), encoding="utf-8")
    return folder / "few.jsonl"


def in_turns(file: Path, *, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Every way once a round, each second round in the other order."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for number in range(repeats):
        for name in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
            command = [sys.executable, __file__, "--way", name, "--file", str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def table(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Means by size and way; the ratio is ours to theirs, rows a second."""
    lines = [
        f"{os.cpu_count()} cores, Python {platform.python_version()}, datasets {datasets.__version__}",
        "",
        "| rows | way | rows/s | memory added, MiB | the stage's rate to it | that of reading alone |",
        "|---|---|---|---|---|---|",
    ]
    for rows, ways in found.items():
        ours, reading = (np.array([one["seconds"] for one in ways[name]]) for name in list(WAYS)[:2])
        for name, rounds in ways.items():
            seconds = np.array([one["seconds"] for one in rounds])
            memory = max(one["mib"] for one in rounds)
            theirs = name.startswith("datasets")
            against = f"{ratio(seconds, ours)} | {ratio(seconds, reading)}" if theirs else " | "
            rate = rows / seconds.mean()
            lines.append(f"| {rows:,} | {name} | {rate:,.0f} | {memory:.0f} | {against} |")
    return lines


def plot(found: dict[int, dict[str, list[dict[str, float]]]], file: Path) -> None:
    """Seconds and memory over rows."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for name in WAYS:
        sizes = list(found)
        for axis, key, label in zip(axes, ("seconds", "mib"), ("seconds", "memory added, MiB"), strict=True):
            means = [sum(one[key] for one in found[rows][name]) / len(found[rows][name]) for rows in sizes]
            axis.plot(sizes, means, marker="o", label=name)
            scale = "log" if key == "seconds" else "linear"
            axis.set(xlabel="rows", ylabel=label, xscale="log", yscale=scale)
    axes[0].legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
