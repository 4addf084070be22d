"""Functions of the tests on several ranks: `with_ranks("module:function", folder, processes=2)` runs one in a
process of its own, as rank 0, with the other ranks as its children.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from kill_resume import MARK
from preforch_training.distributed.config import Config, Sharding
from preforch_training.distributed.launch import ranks


@contextmanager
def start_ranks(
    function: str, folder: Path, *, processes: int, sharding: Sharding = "ddp", mark: str = ""
) -> "Iterator[subprocess.Popen[str]]":
    """`function(folder)` on rank 0 of a group; it is killed at the end. `mark`: what finds its processes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", MARK: mark}
    command = [sys.executable, "-m", "ranks_world", function, str(folder), str(processes), sharding]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def with_ranks(
    function: str, folder: Path, *, processes: int, sharding: Sharding = "ddp", check: bool = True
) -> tuple[int, str]:
    """Run `function(folder)` on rank 0 to its end; its status and what it printed on stderr."""
    with start_ranks(function, folder, processes=processes, sharding=sharding) as process:
        _, said = process.communicate(timeout=300)
    assert not check or process.returncode == 0, said[-8000:] + logs(folder)
    return process.returncode, said


def logs(folder: Path) -> str:
    """What the other ranks said."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("logs/rank-*.log")))


def main(function: str, folder: Path, processes: int, sharding: Sharding) -> None:
    """Be rank 0."""
    assert sharding in get_args(Sharding)
    module, _, name = function.partition(":")
    with ranks(processes, Config(sharding=sharding), logs=folder / "logs"):
        getattr(importlib.import_module(module), name)(folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])  # type: ignore[arg-type]  # checked
