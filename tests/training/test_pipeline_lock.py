"""One process at a time works on a run; a dead one does not block it."""

import os
import signal
from pathlib import Path

import pytest
from preforch_training.pipeline import STAGES, only_one


def test_a_second_process_is_refused_and_told_why(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with only_one(run):  # noqa: SIM117  # the second one is what is tested
        with pytest.raises(ValueError, match="run: another process is training this run"), only_one(run):
            pass


def test_the_lock_is_free_after_the_end_and_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), only_one(tmp_path):
            raise KeyError("failed stage")
    with only_one(tmp_path):
        pass


def test_two_runs_do_not_block_each_other(tmp_path: Path) -> None:
    with only_one(tmp_path / "a"), only_one(tmp_path / "b"):
        pass


def hold_in_child(folder: Path) -> int:
    """A child process that holds the lock until it is killed; its id."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with only_one(folder):
                os.write(writing, b"1")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as ready:
        assert ready.read(1) == b"1"
    return child


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    child = hold_in_child(tmp_path)
    try:
        with pytest.raises(ValueError, match="another process is training"), only_one(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with only_one(tmp_path):
        pass


def test_the_stages_come_in_the_order_in_which_they_read_each_other() -> None:
    assert list(STAGES) == ["data", "reward", "scores", "orchestrator", "policy", "bundle", "report"]
