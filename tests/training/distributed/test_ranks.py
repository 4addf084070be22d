"""A group of ranks: jobs that all of them run, and what becomes of it when one of them fails or dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_world
from kill_resume import marked
from preforch_training.distributed.config import Config
from preforch_training.distributed.group import launched_place, together
from preforch_training.distributed.launch import ranks
from preforch_training.distributed.shares import shared
from rank_jobs import gather_squares
from ranks_world import logs, start_ranks, with_ranks


def test_all_ranks_run_a_job_and_rank_0_gets_its_result_in_order(tmp_path: Path) -> None:
    with_ranks("rank_jobs:squares", tmp_path, processes=3)
    assert {path.name: path.read_text() for path in tmp_path.glob("square-*")} == {
        "square-0": "0",
        "square-1": "1",
        "square-2": "4",
    }


def test_one_process_runs_a_job_as_a_plain_call(tmp_path: Path) -> None:
    with ranks(1, Config(), logs=tmp_path):
        assert together(gather_squares) == [0]
        assert shared(np.array, [1, 2, 3], lengths=[1, 1, 1]).tolist() == [1, 2, 3]
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_another_rank_ends_the_run_and_says_where_its_log_is(tmp_path: Path) -> None:
    status, said = with_ranks("rank_jobs:fails_elsewhere", tmp_path, processes=2, check=False)
    assert status == 1
    assert f"rank 1 ended with status 1; {tmp_path / 'logs' / 'rank-1.log'} ends with:" in said
    assert "MemoryError: rank 1 has no room" in said


def test_an_error_that_all_ranks_have_is_rank_0s_own(tmp_path: Path) -> None:
    status, said = with_ranks("rank_jobs:fails_everywhere", tmp_path, processes=2, check=False)
    assert status == 1
    assert said.endswith("ValueError: a loss is not finite\n")


def appears(file: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, logs(file.parent)
        time.sleep(0.05)


def rank_1(process: "subprocess.Popen[str]", mark: str) -> int:
    """The process id of the only child."""
    (child,) = set(marked(mark)) - {process.pid}
    return child


@pytest.mark.parametrize("what", ["waits", "hangs"])
def test_a_rank_that_dies_ends_the_run_whatever_rank_0_is_doing(tmp_path: Path, what: str) -> None:
    with start_ranks(f"rank_jobs:{what}", tmp_path, processes=2, mark=f"dies-{what}") as process:
        appears(tmp_path / "waiting", process)
        os.kill(rank_1(process, f"dies-{what}"), signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "preforch: error: rank 1 ended with status -9" in said


@pytest.mark.parametrize("what", ["waits", "hangs"])
def test_rank_0_leaves_no_process_when_it_is_killed(tmp_path: Path, what: str) -> None:
    mark = f"killed-{what}"
    with start_ranks(f"rank_jobs:{what}", tmp_path, processes=2, mark=mark) as process:
        appears(tmp_path / "waiting", process)
        assert len(marked(mark)) == 2
        process.kill()
        process.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marked(mark) == []


def test_a_launchers_variables_say_where_a_process_stands() -> None:
    assert launched_place({}) is None
    given = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node", "MASTER_PORT": "29500"}
    place = launched_place(given | {"LOCAL_WORLD_SIZE": "2"})
    assert place is not None
    assert place.environment == given | {"LOCAL_WORLD_SIZE": "2"}
    with pytest.raises(ValueError, match="RANK is set, as a launcher does, but MASTER_ADDR, MASTER_PORT not"):
        launched_place({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"})


def test_torchrun_starts_ranks_that_do_the_same(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(LAUNCHED, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(program), str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("square-*"))) == 3


LAUNCHED = """
import os, sys
from pathlib import Path
from preforch_training.distributed.config import Config
from preforch_training.distributed.group import launched_place
from preforch_training.distributed.launch import ranks
from preforch_training.distributed.worker import run
import rank_jobs
if int(os.environ["RANK"]) > 0:
    sys.exit(run(launched_place(), None))
with ranks(None, Config(), logs=Path(sys.argv[1])):
    rank_jobs.squares(Path(sys.argv[1]))
"""


def test_a_batch_that_ranks_cannot_share_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    status, said = with_ranks("rank_jobs:three_share_a_batch", tmp_path, processes=3, check=False)
    assert status == 1
    assert said.endswith(
        "ValueError: reward.funny.batch_size is 8, which 3 ranks cannot share: allowed are multiples of 3, "
        "such as 6 or 9\n"
    )


def test_a_config_names_the_batches_that_ranks_share(tmp_path: Path) -> None:
    rewards = {
        "funny": {"kind": "bradley_terry", "base": "none", "batch_size": 6},
        "safe": {"kind": "pair_head", "encoder": "none", "batch_size": 7},
    }
    training = {"steps": 1, "learning_rate": 1e-3, "batch_size": 2}
    config = small_world.make_config(
        tmp_path,
        reward=rewards,
        policy={"base": "demo"},
        policies={"plain": {"kind": "sft", "training": training}},
    )
    assert config.shared_batches == {
        "reward.funny.batch_size": 6,
        "orchestrator.batch_size": 16,
        "policies.plain.training.batch_size": 2,
    }


def test_lora_in_shards_is_refused_before_anything_starts(tmp_path: Path) -> None:
    training = {"steps": 1, "learning_rate": 1e-3, "batch_size": 2, "lora_rank": 4}
    policies = {"plain": {"kind": "sft", "training": training}}
    with pytest.raises(ValueError, match=r"policies\.plain\.training\.lora_rank is 4 .* allowed are 'ddp'"):
        small_world.make_config(
            tmp_path, policy={"base": "demo"}, policies=policies, distributed={"sharding": "fsdp2"}
        )
