"""All stages on a tiny configuration, then the gateway with real vLLM on the policy that came out of it."""

import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w
from kill_resume import differences, kill_and_continue, train_command
from preforch_models.bundle import read_bundle
from preforch_models.manifest import read_manifest, verify
from preforch_models.policy_card import check_match, read_policy_card

CONFIG = Path(__file__).parent.parent / "training" / "configs" / "demo.toml"
DATA = [
    "data.train_prompts=120",
    "data.validation_prompts=40",
    "data.test_prompts=24",
    "orchestrator.epochs=1",
]
REWARDS = [f"reward.{name}.epochs=1" for name in ("helpful", "harmless", "humor")]
POLICY = [
    "policies.wic.offline.steps=12",
    "policies.wic.online_rounds=1",
    "policies.wic.online.prompts=8",
    "policies.wic.online.samples_per_prompt=2",
    "policies.wic.online.steps=4",
    "policies.plain={kind='sft', training={steps=4, learning_rate=1e-3, batch_size=8}}",
    "serve=wic",
    "report.sweep_prompts=2",
    "report.utility_prompts=2",
    "report.grid_step=0.5",
    "report.replicates=100",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("pipeline") / "run"
    subprocess.run(train_command(CONFIG, folder, [*DATA, *REWARDS, *POLICY]), check=True)
    return folder


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_every_stage_leaves_a_whole_artifact(run: Path) -> None:
    for name, kind in [
        ("data", "data"),
        ("reward/helpful", "reward"),
        ("scores", "scores"),
        ("orchestrator", "orchestrator"),
        ("policy/base", "policy-base"),
        ("policy/wic/round-0", "policy"),
        ("policy/wic/round-1", "policy"),
        ("policy/plain/round-0", "policy"),
        ("bundle", "bundle"),
        ("report", "report"),
    ]:
        assert verify(run / name, kind=kind).seconds >= 0
    assert not list(run.rglob("*.partial"))
    assert not list(run.rglob("*.work"))


def test_bundle_and_policy_of_a_run_belong_together(run: Path) -> None:
    for policy in ("wic/round-1", "plain/round-0"):
        check_match(read_bundle(run / "bundle"), read_policy_card(run / "policy" / policy))


def test_a_round_tells_how_scores_by_the_own_fold_and_by_full_models_differ(run: Path) -> None:
    found = read_manifest(run / "policy" / "wic" / "round-1").metrics
    assert 0 <= found["own_fold.kept_changes"] <= 1
    assert all(found[f"own_fold.{name}.sd"] > 0 for name in ("helpful", "harmless", "humor"))


def test_training_again_changes_nothing(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    command = train_command(CONFIG, run, [*DATA, *REWARDS, *POLICY])
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert said.count("up to date") == len(before)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")} == before


def test_the_demo_shows_answers_from_the_real_service_and_ends(run: Path) -> None:
    settings = [part for s in (f"run.folder={run}", *DATA, *REWARDS, *POLICY) for part in ("--set", s)]
    command = [sys.executable, "-m", "preforch_cli", "demo", "--config", str(CONFIG), "--no-serve", *settings]
    done = subprocess.run([*command, "--port", str(free_port())], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("> ") >= 6
    assert "counted per answer" in done.stdout
    assert done.stdout.count("you ask for humor 0.8") == 7


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_result(tmp_path: Path) -> None:
    values = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    del values["policy"], values["policies"]
    config = tmp_path / "config.toml"
    config.write_text(tomli_w.dumps(values), encoding="utf-8")
    settings = [*DATA, *REWARDS, "report.replicates=100"]
    subprocess.run(train_command(config, tmp_path / "whole", settings), check=True)
    kill_and_continue(config, tmp_path / "killed", settings, kills=2, seconds=20, seed=3)
    assert differences(tmp_path / "whole", tmp_path / "killed") == []
