"""CPU time of the answers that nobody should have to wait for.

Help, and the error for a configuration that is wrong.

In:  nothing. Out: a Markdown table on stdout: CPU seconds (user and system) of each command, median of the
     rounds.

    python benchmarks/startup.py
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from preforch_training.statistics.markdown import table

WRONG = 'preset = "recommended"\n\n[run]\nfolder = "runs/x"\nsead = 1\n'


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="CPU time of help and of the error for a wrong configuration."
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds, default 5")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "wrong.toml"
        config.write_text(WRONG, encoding="utf-8")
        commands = {
            "preforch --help": (["--help"], 0),
            "preforch train --help": (["train", "--help"], 0),
            "preforch train all WRONG.toml": (["train", "all", str(config)], 2),
            "preforch serve --help": (["serve", "--help"], 0),
        }
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.repeats):
            for name, (arguments, code) in commands.items():
                found[name].append(cpu_seconds(arguments, code))
    rows = [[name, f"{statistics.median(seconds):.2f}"] for name, seconds in found.items()]
    print(table(["command", "CPU seconds"], rows))


def cpu_seconds(arguments: Sequence[str], code: int) -> float:
    """CPU time of one command. Raises SystemExit where it ends with another code than `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "preforch_cli", *arguments], capture_output=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        raise SystemExit(f"{arguments} ended with {done.returncode}, expected {code}: {done.stderr.decode()}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
