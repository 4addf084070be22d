"""All stages in order. One process at a time works on a run."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preforch_training.bundle import stage as bundle
from preforch_training.config import RunConfig, write_resolved
from preforch_training.data import stage as data
from preforch_training.orchestrator import stage as orchestrator
from preforch_training.policy import stage as policy
from preforch_training.report import stage as report
from preforch_training.reward import stage as reward
from preforch_training.run import Run
from preforch_training.scores import stage as scores
from preforch_training.study import stage as study

STAGES: dict[str, Callable[[Run, RunConfig], None]] = {
    "data": data.build,
    "reward": reward.build,
    "scores": scores.build,
    "orchestrator": orchestrator.build,
    "policy": policy.build,
    "bundle": bundle.build,
    "study": study.build,
    "report": report.build,
}


def train(config: RunConfig, *, stage: str) -> Run:
    """Build one stage, or `all`. Raises ValueError when another process is at work on the run."""
    run = config.open_run()
    with only_one(run.folder):
        for name, build in STAGES.items():
            if stage in ("all", name):
                build(run, config)
                # After the stage: a config that fails its first stage leaves nothing behind.
                write_resolved(config, run.config_file)
    return run


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the run's lock; the kernel frees it when the process dies, however it dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us deletes the file: a lock on a deleted file excludes nobody.
            held = os.path.samestat(os.fstat(file.fileno()), (folder / ".lock").stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise ValueError(f"{folder}: another process is training this run")
        try:
            yield
        finally:
            (folder / ".lock").unlink()
            with suppress(OSError):
                folder.rmdir()  # only when it is empty: the run failed before its first artifact
