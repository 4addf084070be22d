"""`train`: whose folder it is, what a failed or killed run leaves, and how the next attempt goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from preforch_models.manifest import ArtifactError, verify
from preforch_models.run_folder import RUN_FILE, RunInfo, read_run_info
from preforch_training.config import RunConfig, read_config
from preforch_training.pipeline import open_run, train
from preforch_training.records import RecordError
from small_world import build, make_config, make_run, pair_rows, write_rows

MARK = "PREFORCH_TEST_DIES"
PROGRAM = """
import sys
from pathlib import Path
from test_pipeline_train import deadly
from preforch_training.pipeline import train
train(deadly(Path(sys.argv[1])), stage="all")
"""


def dies(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A reward function that ends its process where the environment asks for it."""
    if MARK in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return [float(len(response)) for response in responses]


def deadly(folder: Path) -> RunConfig:
    """Its stage `scores` can be killed."""
    return make_config(folder, reward={"funny": {"kind": "function", "function": "test_pipeline_train:dies"}})


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder, with its time and what is in it."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_stage_leaves_its_artifact_and_what_the_run_is(tmp_path: Path) -> None:
    _, config = make_run(tmp_path)
    run = train(config, stage="data")
    assert names(run.folder) == ["config.toml", "data", RUN_FILE]
    assert read_run_info(run.folder) == RunInfo(format_version=2, serve=None)
    assert read_config(run.config_file) == config
    train(config, stage="reward")
    assert names(run.folder) == ["config.toml", "data", "reward", RUN_FILE]


def test_the_run_folder_says_which_policy_is_served_and_follows_the_config(tmp_path: Path) -> None:
    training = {"steps": 1, "learning_rate": 1e-3, "batch_size": 1}
    policies = {name: {"kind": "sft", "training": training} for name in ("one", "two")}
    write_rows(tmp_path / "pairs.jsonl", pair_rows())
    for serve in ("one", "two"):
        config = make_config(tmp_path, policy={"base": "demo"}, policies=policies, serve=serve)
        info = read_run_info(train(config, stage="data").folder)
        assert info is not None
        assert info.serve == serve


@pytest.mark.parametrize("only", [["data"], ["data", "reward"]])
@pytest.mark.parametrize("stage", ["all", "data", "scores"])
def test_a_run_of_an_earlier_version_is_refused_in_one_sentence_and_nothing_in_it_changes(
    tmp_path: Path, only: list[str], stage: str
) -> None:
    run, config = make_run(tmp_path)
    for made in only:
        # What makes a run's folder one of this version is left out.
        build(made, run, config)
    before = contents(run.folder)
    with pytest.raises(ArtifactError) as error:
        train(config, stage=stage)
    assert str(error.value) == (
        f"{run.folder}: this run has format 1, this version of the program reads format 2; "
        "delete the folder or choose another run.folder, and train again"
    )
    after = contents(run.folder)
    # The lock came and went; that shows in the time of the folder itself and nowhere else.
    del before["."], after["."]
    assert after == before


def test_a_run_of_a_later_version_is_refused(tmp_path: Path) -> None:
    run, config = make_run(tmp_path)
    run.folder.mkdir()
    (run.folder / RUN_FILE).write_text(json.dumps({"format_version": 3}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="this run has format 3, which this program is too old for"):
        train(config, stage="data")
    assert json.loads((run.folder / RUN_FILE).read_bytes()) == {"format_version": 3}
    assert names(run.folder) == [RUN_FILE]


def test_a_config_that_fails_its_first_stage_leaves_no_folder(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    write_rows(tmp_path / "pairs.jsonl", [{"prompt": "x"}])
    for stage in ("all", "data"):
        with pytest.raises(RecordError, match="column 'chosen' is missing"):
            train(config, stage=stage)
        assert not config.run.folder.exists()


def test_a_stage_that_fails_later_leaves_what_was_made_before(tmp_path: Path) -> None:
    broken = {"funny": {"kind": "function", "function": "small_world:fails"}}
    _, config = make_run(tmp_path, reward=broken)
    with pytest.raises(ValueError, match="no responses"):
        train(config, stage="all")
    assert names(config.run.folder) == ["config.toml", "data", "reward", RUN_FILE]


def test_a_run_that_was_killed_between_two_stages_goes_on(tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", pair_rows())
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {MARK: "1", "PYTHONPATH": paths}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    config = deadly(tmp_path)
    run = open_run(config)
    assert {"data", "reward", RUN_FILE, ".lock"} <= set(names(run.folder))
    assert not run.scores.exists()
    # Killed a moment earlier, before the resolved config was written.
    run.config_file.unlink()
    made = {path: path.stat().st_mtime_ns for path in run.folder.rglob("manifest.json")}
    for stage in ("data", "reward", "scores"):
        train(config, stage=stage)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    verify(run.scores, kind="scores")
    assert names(run.folder) == ["config.toml", "data", "reward", RUN_FILE, "scores"]


def test_an_unknown_stage_is_our_own_mistake(tmp_path: Path) -> None:
    run, config = make_run(tmp_path)
    with pytest.raises(KeyError, match="dreams"):
        build("dreams", run, config)
