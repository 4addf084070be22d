"""`preforch train --nproc 2` and `torchrun ... preforch train`: one writer, one result, also after kills."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_world
from kill_resume import check_artifacts, differences, kill_and_continue, train_command, work_seconds
from preforch_training.config import write_resolved
from small_world import make_config, pair_rows, write_rows
from transformers import AutoModel


def write_config(folder: Path) -> Path:
    """A run that trains a reward model with its folds and an orchestrator, both without dropout."""
    base = small_world.write_qwen_classifier(folder / "qwen")
    AutoModel.from_pretrained(base).save_pretrained(base)
    encoder = small_world.write_encoder(folder / "encoder", dropout=0.0)
    write_rows(folder / "pairs.jsonl", pair_rows())
    settings = {"epochs": 1, "batch_size": 10, "learning_rate": 1e-3, "save_steps": 2, "max_tokens": 96}
    config = make_config(
        folder,
        reward={"funny": {"kind": "bradley_terry", "base": str(base), **settings}},
        orchestrator={"encoder": str(encoder), "batch_size": 10, "epochs": 3},
        report={"replicates": 100},
    )
    write_resolved(config, folder / "config.toml")
    return folder / "config.toml"


@pytest.fixture
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.usefixtures("_paths")
def test_ranks_of_a_launcher_leave_the_lock_to_rank_0_and_build_once(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "preforch_cli"]
    for stage in ("data", "reward"):
        command = [sys.executable, *launcher, "train", stage, str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("reward/funny: building") == 1
    assert check_artifacts(tmp_path / "run") == 3
    assert not list((tmp_path / "run").rglob(".*.work"))


@pytest.mark.usefixtures("_paths")
def test_a_batch_that_the_ranks_cannot_share_ends_the_command_before_any_stage(tmp_path: Path) -> None:
    command = train_command(
        write_config(tmp_path), tmp_path / "run", ["orchestrator.batch_size=9"], processes=2
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "orchestrator.batch_size is 9, which 2 ranks cannot share" in done.stderr
    assert not (tmp_path / "run" / "data").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_paths")
def test_two_ranks_make_the_run_that_one_makes_also_when_they_are_killed(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for name, processes in {"one": None, "two": 2}.items():
        command = train_command(config, tmp_path / name, [], processes=processes)
        subprocess.run(command, check=True, cwd=tmp_path)
    assert differences(tmp_path / "one", tmp_path / "two", tolerance=1e-3) == []
    seconds = work_seconds(tmp_path / "two")
    kill_and_continue(config, tmp_path / "killed", [], kills=4, seconds=seconds + 10, seed=2, processes=2)
    assert differences(tmp_path / "two", tmp_path / "killed") == []
    # What a run of two ranks left is taken up by one.
    kill_and_continue(config, tmp_path / "fewer", [], kills=1, seconds=seconds, seed=3, processes=2)
    subprocess.run(train_command(config, tmp_path / "fewer", []), check=True, cwd=tmp_path)
    assert differences(tmp_path / "one", tmp_path / "fewer", tolerance=1e-3) == []
