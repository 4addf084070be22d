"""One process at a time works on a run; a dead one does not block it."""

import subprocess
import sys
from pathlib import Path

import pytest
from preforch_training.pipeline import only_one
from preforch_training.stages import STAGES


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


HOLD = """
import fcntl, signal, sys
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    signal.pause()
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            with pytest.raises(ValueError, match="another process is training"), only_one(tmp_path):
                pass
        finally:
            process.kill()
    with only_one(tmp_path):
        pass


def test_the_stages_come_in_the_order_in_which_they_read_each_other() -> None:
    assert list(STAGES) == ["data", "reward", "scores", "orchestrator", "policy", "bundle", "study", "report"]
