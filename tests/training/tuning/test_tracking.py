"""Trainings are reported by name, on this machine, once each, and change nothing but that."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import policy_world
import pytest
import small_world
import tomli_w
import torch
import wandb
from mlflow.entities import Run as MlflowRun
from orchestrator_world import CONTRARY, TRAIN, largest_difference
from preforch_models.manifest import read_manifest
from preforch_models.orchestrator_model import OrchestratorModel
from preforch_training.orchestrator.fine_tuning import fit
from preforch_training.pipeline import open_run
from preforch_training.tuning.tracking import Tracker, Tracking, tracked
from small_world import NAMES, make_config, make_run, raw_config

ALL: tuple[Tracker, ...] = ("tensorboard", "wandb", "mlflow")
CHOICES = ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")


@pytest.fixture(scope="module", autouse=True)
def _nothing_said() -> Iterator[None]:
    """An environment without a word about trackers, which is what most users have."""
    before = dict(os.environ)
    for name in CHOICES:
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


def train(encoder: Path, folder: Path, tracking: Tracking, **options: object) -> OrchestratorModel:
    """A training of the toy rule in `folder`, which continues where there are checkpoints."""
    settings = {"encoder": str(encoder), "batch_size": 32, "learning_rate": 1e-2, "epochs": 2, **options}
    config = make_config(folder, orchestrator=settings).orchestrator
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    work = folder / "work"
    work.mkdir(exist_ok=True, parents=True)
    return fit(config, NAMES, TRAIN, CONTRARY, folder=out, work=work, seed=3, tracking=tracking).model


def mlflow_runs(tracking: Path) -> dict[str, MlflowRun]:
    """MLflow's runs by their names, which occur once each."""
    client = mlflow.MlflowClient((tracking / "mlflow").resolve().as_uri())
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids)
    named = {run.info.run_name: run for run in runs}
    assert len(named) == len(runs)
    return named


def wandb_ids(tracking: Path) -> list[str]:
    """Ids of the offline runs, in the order in which they were begun."""
    return [path.name.rpartition("-")[2] for path in sorted((tracking / "wandb").glob("offline-run-*"))]


@pytest.fixture
def asked_hosts(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Hosts that this process looks up or connects to."""
    found: set[str] = set()
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def recorded_connect(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            found.add(str(address[0]))
        connect(self, address)

    def recorded_look_up(host: Any, *rest: Any, **named: Any) -> Any:
        found.add(str(host))
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", recorded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", recorded_look_up)
    return found


def test_a_training_is_reported_to_all_trackers_and_is_the_same_as_unreported(
    encoder: Path, tmp_path: Path, asked_hosts: set[str]
) -> None:
    tracking = Tracking(ALL, "toy/orchestrator", tmp_path / "tracking")
    reported = train(encoder, tmp_path / "reported", tracking)
    quiet = train(encoder, tmp_path / "quiet", Tracking(()))
    assert largest_difference(reported, quiet) == 0
    assert asked_hosts <= {"127.0.0.1", "::1", "localhost"}, "nothing is sent anywhere unless it is asked for"
    (name, run), *others = mlflow_runs(tracking.folder).items()
    assert not others
    assert name == "toy/orchestrator"
    assert run.info.status == "FINISHED"
    assert {"eval_loss", "train_loss"} <= set(run.data.metrics)
    assert run.data.params["num_train_epochs"] == "2"
    assert len(wandb_ids(tracking.folder)) == 1
    (log,) = tracking.folder.glob("wandb/offline-run-*/run-*.wandb")
    assert b"toy/orchestrator" in log.read_bytes()
    assert wandb.run is None
    assert mlflow.active_run() is None
    assert list((tmp_path / "reported" / "out" / "tensorboard").glob("events.*"))
    assert sorted(path.name for path in (tmp_path / "quiet" / "out").iterdir()) == ["metrics.jsonl"]


def test_a_continued_training_continues_its_runs(encoder: Path, tmp_path: Path) -> None:
    tracking = Tracking(("wandb", "mlflow"), "toy/orchestrator", tmp_path / "tracking")
    train(encoder, tmp_path, tracking)
    # What a kill in the second epoch leaves behind.
    steps = sorted(tmp_path.glob("work/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(steps[-1])
    train(encoder, tmp_path, tracking)
    first, second = wandb_ids(tracking.folder)
    assert first == second
    assert [run.info.status for run in mlflow_runs(tracking.folder).values()] == ["FINISHED"]


def test_a_run_whose_record_is_gone_begins_anew(encoder: Path, tmp_path: Path) -> None:
    tracking = Tracking(("mlflow",), "toy/orchestrator", tmp_path / "tracking")
    train(encoder, tmp_path, tracking)
    (run,) = mlflow_runs(tracking.folder).values()
    shutil.rmtree(tracking.folder / "mlflow" / run.info.experiment_id / run.info.run_id)
    train(encoder, tmp_path, tracking)
    assert list(mlflow_runs(tracking.folder)) == ["toy/orchestrator"]


def test_a_training_that_fails_is_reported_as_failed_and_the_next_one_apart(tmp_path: Path) -> None:
    def reported(name: str) -> Tracking:
        (tmp_path / name).mkdir()
        return Tracking(("wandb", "mlflow"), f"toy/{name}", tmp_path / "tracking")

    with pytest.raises(ZeroDivisionError), tracked(reported("one"), tmp_path / "one"):
        raise ZeroDivisionError
    with tracked(reported("two"), tmp_path / "two"):
        assert wandb.run is not None
    runs = mlflow_runs(tmp_path / "tracking")
    assert {name: run.info.status for name, run in runs.items()} == {
        "toy/one": "FAILED",
        "toy/two": "FINISHED",
    }
    assert len(set(wandb_ids(tmp_path / "tracking"))) == 2
    assert wandb.run is None


def test_names_say_run_stage_and_objective_fold_or_round(encoder: Path, tmp_path: Path) -> None:
    base = small_world.write_qwen_classifier(tmp_path / "base")
    reward = {"kind": "bradley_terry", "base": str(base), "epochs": 0.2, "batch_size": 8, "max_tokens": 96}
    run, config = make_run(
        tmp_path,
        run={"report_to": ["mlflow"]},
        reward={"folds": 2, "funny": reward, "safe": {"kind": "function", "function": "small_world:safe"}},
        orchestrator={"encoder": str(encoder), "epochs": 1},
    )
    for stage in ("data", "reward", "scores", "orchestrator"):
        small_world.build(stage, run, config)
    wanted = [f"run/reward/funny/{label}" for label in ("fold-0", "fold-1", "full")]
    assert sorted(mlflow_runs(run.folder / "tracking")) == ["run/orchestrator", *wanted]
    policies, config = policy_world.write_inputs(
        tmp_path / "policies",
        policy_world.make_config(
            tmp_path / "policies", run={"folder": tmp_path / "policies", "seed": 1, "report_to": ["mlflow"]}
        ),
    )
    small_world.build("policy", policies, config, policy_world.ScriptedSampler())
    named = [f"policies/policy/wic/round-{number}" for number in (0, 1)]
    assert sorted(mlflow_runs(policies.folder / "tracking")) == named


def test_another_tracker_trains_nothing_again(encoder: Path, tmp_path: Path) -> None:
    orchestrator = {"encoder": str(encoder), "epochs": 1}
    run, config = make_run(tmp_path, orchestrator=orchestrator)
    for stage in ("data", "reward", "scores", "orchestrator"):
        small_world.build(stage, run, config)
    before = read_manifest(run.orchestrator)
    reported = make_config(tmp_path, orchestrator=orchestrator, run={"report_to": ["wandb", "mlflow"]})
    small_world.build("orchestrator", open_run(reported), reported)
    assert read_manifest(run.orchestrator) == before
    assert not (run.folder / "tracking").exists()


def test_a_tracker_that_is_not_installed_is_an_error_before_anything_is_made(tmp_path: Path) -> None:
    raw = raw_config(tmp_path, run={"report_to": ["tensorboard", "wandb"]})
    (tmp_path / "run.toml").write_text(tomli_w.dumps(raw), encoding="utf-8")
    small_world.write_rows(tmp_path / "pairs.jsonl", small_world.pair_rows())
    program = (
        "import sys; sys.modules['wandb'] = None\n"
        "from preforch_cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "data", str(tmp_path / "run.toml")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "run.report_to names 'wandb', which is not installed" in done.stderr
    assert "pip install 'preference-orchestrator[tracking]'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_trackers_draw_nothing_from_the_randomness_of_a_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3).tolist()
    torch.manual_seed(0)
    with tracked(Tracking(ALL, "toy/orchestrator", tmp_path / "tracking"), tmp_path):
        assert torch.rand(3).tolist() == wanted
