"""Preset `paper`, value by value, each with its origin: what a run gets that leaves everything open."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from preforch_training.config import read_config
from preforch_training.presets import POLICY_PRESETS, PRESETS

OPEN = """
preset = "paper"
objectives = [{name = "helpful"}, {name = "harmless"}]
[run]
folder = "run"
seed = 1
[data]
source = "files"
sources = [{path = "pairs.jsonl", objective = "overall"}]
[reward]
helpful = {kind = "endpoint", url = "http://localhost:1"}
harmless = {kind = "endpoint", url = "http://localhost:1"}
[policy]
base = "model"
[policies.wic]
kind = "wic"
offline = {steps = 1, learning_rate = 1e-4, batch_size = 1}
online = {steps = 1, learning_rate = 1e-5, batch_size = 1}
"""
PAPER: dict[str, tuple[object, str]] = {
    # Rewards, scores and orchestrator.
    "reward.folds": ("off", "[paper] has no fold models"),
    "orchestrator.patience": ("off", "[paper] has no early stopping"),
    "scores.calibration": ("zscore", "[RiC]"),
    "orchestrator.encoder": ("FacebookAI/xlm-roberta-base", "[paper]"),
    "orchestrator.target": ("chosen_softmax", "[paper] Eq. 7"),
    "orchestrator.tau": (0.1, "[paper]"),
    "orchestrator.loss": ("reverse", "[paper] Eq. 8"),
    "orchestrator.learning_rate": (1e-5, "[paper]"),
    "orchestrator.batch_size": (32, "[paper]"),
    "orchestrator.confidence": ("off", "[paper] has none"),
    # Sampling.
    "policy.temperature": (0.7, "[RiC]"),
    "policy.top_p": (0.9, "[RiC]"),
    # Weights in context.
    "policies.wic.tau": (0.1, "[paper] Eq. 7"),
    "policies.wic.quality_quantile": (0.7, "[RiC]"),
    "policies.wic.online_rounds": (2, "[paper]"),
    "policies.wic.offline.responses": ("all", "[paper]"),
    "policies.wic.online.prompts": (5000, "[paper]"),
    "policies.wic.online.samples_per_prompt": (1, "[RiC]"),
    "policies.wic.online.keep": ("any_above_quantile", "[RiC]"),
    "policies.wic.online.random_weight_share": (0.0, "[paper]: the weights are f(x)"),
    "policies.wic.online.original_share": (0.5, "[RiC]"),
}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Values of tables within tables by their dotted names."""
    values: dict[str, object] = {}
    for key, value in table.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The settings of a file that says nothing about the method."""
    file = tmp_path_factory.mktemp("preset") / "config.toml"
    file.write_text(OPEN, encoding="utf-8")
    return flat(read_config(file).model_dump(mode="json"))


@pytest.mark.parametrize("name", PAPER)
def test_preset_paper_gives_the_value_of_its_origin(resolved: dict[str, object], name: str) -> None:
    value, origin = PAPER[name]
    assert resolved[name] == value, origin


def test_every_choice_of_preset_paper_has_an_origin_here() -> None:
    choices = flat({**PRESETS["paper"], "policies": POLICY_PRESETS["paper"]})
    assert set(choices) <= set(PAPER)
    assert choices == {name: PAPER[name][0] for name in choices}


CONFIGS = Path(__file__).parents[2] / "training" / "configs"


def test_what_a_run_has_otherwise_than_its_preset_is_told() -> None:
    assert read_config(CONFIGS / "demo.toml").overrides == (
        "reward.folds = 3 (preset: 5)",
        "policies.wic.online.samples_per_prompt = 4 (preset: 8)",
    )
    changed = ("orchestrator.tau=0.7", "orchestrator.loss=forward", "policies.wic.quality_quantile=0.5")
    assert set(read_config(CONFIGS / "demo.toml", settings=changed).overrides) > {
        "orchestrator.tau = 0.7 (preset: fit)",
        "orchestrator.loss = forward (preset: regress)",
        "policies.wic.quality_quantile = 0.5 (preset: 0.7)",
    }


@pytest.mark.parametrize("name", ["hh-assistant", "reddit-summary", "ultrafeedback"])
def test_the_recipes_of_the_paper_override_nothing_of_its_preset(name: str) -> None:
    config = read_config(CONFIGS / f"{name}.toml")
    assert config.preset == "paper"
    assert config.overrides == ()
