"""The smoke run for a GPU machine: its words, and (slow) the whole of it at the size of a test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_smoke_models import builders
from preforch_training.config import read_config
from preforch_training.policy.settings.wic import WicPolicy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def smoke(*words: str, python: str = sys.executable) -> "subprocess.CompletedProcess[str]":
    """`gpu_smoke.sh` with an interpreter."""
    command = ["bash", str(BENCHMARKS / "gpu_smoke.sh"), *words]
    environment = os.environ | {"PYTHON": python}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_its_config_trains_every_part_once() -> None:
    config = read_config(BENCHMARKS / "gpu_smoke.toml")
    wic = config.policies["wic"]
    assert isinstance(wic, WicPolicy)
    assert wic.rounds == 2, "one offline, one online"
    assert all(reward.trained for reward in config.reward.objectives.values())


def test_the_policy_has_the_size_of_qwen_25_1_5b() -> None:
    with torch.device("meta"):
        made = {name: build().num_parameters() for name, build in builders(1403, 1400, tiny=False).items()}
    assert made["policy"] == 1_543_714_304
    assert made["reward"] == 494_032_768
    assert 2.7e8 < made["encoder"] < 2.8e8


def test_an_unknown_argument_is_named() -> None:
    done = smoke("--large")
    assert done.returncode == 2
    assert "unknown argument --large" in done.stderr


def test_what_the_python_lacks_is_named(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    done = smoke("--work", str(tmp_path / "work"), python=str(bare))
    assert done.returncode == 2
    assert "has no torch transformers trl" in done.stderr
    assert "--wheels" in done.stderr


@pytest.mark.slow
def test_it_runs_whole_at_the_size_of_a_test(tmp_path: Path) -> None:
    done = smoke("--tiny", "--work", str(tmp_path))
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert done.returncode == 0, figures
    assert json.loads(done.stdout) == figures
    made = figures["training"]["artifacts"]
    assert {
        "reward/humor",
        "orchestrator",
        "policy/wic/round-0",
        "policy/wic/round-1",
        "report",
    } <= made.keys()
    assert made["policy/wic/round-1"]["samples"] == 16, "4 responses to each of 4 prompts"
    assert figures["serving"]["tokens"] > 0
    assert figures["serving"]["tokens_per_second"] > 0
    assert len(figures["onnx"]["batches"]) == 5
