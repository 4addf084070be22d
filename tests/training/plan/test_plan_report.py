"""`preforch plan` on the recipes: what it prints where configs are given, and where nothing is to be had."""

import os
import subprocess
import sys
from pathlib import Path

import plan_world
import pytest
from plan_world import write_config
from preforch_training.config import read_config
from preforch_training.plan.machine import fetches, missing, missing_gpus, parts
from preforch_training.plan.report import describe
from preforch_training.plan.tables import Question
from recipe_world import CONFIGS, RECIPES, dry_run

HH = {
    "meta-llama/Llama-2-7b-hf": plan_world.LLAMA_2_7B,
    "FacebookAI/xlm-roberta-base": plan_world.XLM_R_BASE,
    "Ray2333/gpt2-large-helpful-reward_model": plan_world.GPT2_LARGE,
    "Ray2333/gpt2-large-harmless-reward_model": plan_world.GPT2_LARGE,
    "mohameddhiab/humor-no-humor": plan_world.DISTILBERT,
}


def row(text: str, name: str, *, nth: int = 0) -> list[str]:
    """Cells of a table's row by its first cell."""
    rows = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in rows[nth].strip("|").split("|")]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write_config(tmp_path / "configs" / str(number), config)
        for number, (name, config) in enumerate(HH.items())
    }


def test_the_plan_of_hh_assistant_on_one_gpu_and_on_eight(folders: dict[str, Path]) -> None:
    config = read_config(CONFIGS / "hh-assistant.toml")
    one = describe(config, Question(configs=folders), title="hh", reachable=False)
    assert row(one, "meta-llama/Llama-2-7b-hf")[1:] == ["policy", "6,738,415,616", "12.55"]
    # 13.48 GB of weights in 16 bits; LoRA on queries and values at 4 + 4 + 8 bytes.
    lora = 32 * 64 * 2 * 8192
    weights, gradients, optimiser = (6_738_415_616 * 2 + 4 * lora, 4 * lora, 8 * lora)
    found = row(one, "policy/wic, offline")
    assert found[1:4] == [f"{bytes_ / 2**30:.1f}" for bytes_ in (weights, gradients, optimiser)]
    tokens = 10_000 * 8 * 640
    work = row(one, "policy/wic, offline", nth=1)
    flops = 8 * (6_738_415_616 - 32_000 * 4096) * tokens
    assert work[1:] == [f"{tokens:,}", f"{flops:.2e}", f"{flops / 150e12 / 3600:.2f}"]
    assert "vLLM takes 90% of a GPU, 72.0: 12.6 of weights, and room for" in one
    settings = ("policy.engine.tensor_parallel_size=2", "policy.engine.gpu_memory_utilization=0.5")
    halves = read_config(CONFIGS / "hh-assistant.toml", settings=settings)
    two = describe(halves, Question(configs=folders), title="hh", reachable=False)
    assert "vLLM takes 50% of 2 GPUs, 80.0: 12.6 of weights, and room for" in two
    eight = describe(config, Question(configs=folders, nproc=8), title="hh", reachable=False)
    assert "sum, fsdp2 over 8" in eight
    ddp, fsdp = (float(cell) for cell in row(eight, "policy/wic, offline")[5:7])
    assert fsdp < ddp / 4
    assert row(eight, "policy/wic, offline", nth=1) == work, "as many GPU hours, shared by eight"


def test_what_does_not_fit_is_said(folders: dict[str, Path]) -> None:
    config = read_config(CONFIGS / "hh-assistant.toml")
    small = describe(config, Question(configs=folders, gpu_gib=8), title="hh", reachable=False)
    assert "(does not fit)" in " ".join(row(small, "policy/wic, offline"))
    assert "12.6 of weights alone do not fit" in small


@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_needs_nothing_from_the_hub_and_its_sizes_are_those_of_its_models(
    tmp_path: Path, name: str
) -> None:
    recipe = dry_run(tmp_path, name)
    config = read_config(recipe.config, settings=(f"run.folder={tmp_path / 'run'}", *recipe.settings))
    text = describe(config, Question(), title=name, reachable=False)
    assert "unknown" not in text
    assert list(fetches(config, {})) == []
    assert all(part.local for part in parts(config))


def test_without_a_hub_the_plan_says_what_it_needs_and_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "preforch_cli", "plan", str(CONFIGS / "ultrafeedback.toml")]
    command += ["--set", f"run.folder={tmp_path / 'run'}", "--nproc", "8", "--row-tokens", "700"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert "unknown: needs config.json of Qwen/Qwen2.5-7B" in said
    assert row(said, "Qwen/Qwen2.5-0.5B", nth=1)[1:] == ["main", "unknown", "to fetch"]
    assert row(said, "dataset openbmb/UltraFeedback")[1:] == ["main", "unknown", "to fetch"]
    assert row(said, "policy/wic, offline")[1:] == [f"{10_000 * 8 * 700:,}", "unknown", "unknown"]
    assert "- GPUs: 8 are planned with, 0 are visible" in said
    assert "- hub: HF_HUB_OFFLINE is set, and 5 are not in its cache: Qwen/Qwen2.5-0.5B" in said
    assert not (tmp_path / "run").exists(), "a plan makes nothing"


def test_a_config_for_a_model_that_the_run_does_not_have_is_named(folders: dict[str, Path]) -> None:
    config = read_config(CONFIGS / "ultrafeedback.toml")
    with pytest.raises(ValueError, match=r"--config-of .*Llama-2-7b-hf.*: the run's models are"):
        describe(config, Question(configs=folders), title="x", reachable=False)


def test_missing_gpus_and_small_ones_are_counted() -> None:
    assert missing_gpus([80.0] * 8, nproc=8, gpu_gib=80) == []
    assert missing_gpus([79.1], nproc=1, gpu_gib=80) == [], "a data sheet's 80 GB are a little less"
    assert missing_gpus([80.0], nproc=2, gpu_gib=80) == ["GPUs: 2 are planned with, 1 are visible"]
    assert missing_gpus([80.0, 40.0], nproc=2, gpu_gib=80) == ["GPUs of 80 GiB: there are some of 40"]


def test_a_full_disk_is_missing() -> None:
    config = read_config(CONFIGS / "hh-assistant.toml")
    found = missing(config, [], disk=2.0**60, nproc=1, gpu_gib=80, reachable=False)
    assert any(line.startswith("disk: 1073741824 GiB are needed for runs/hh-assistant") for line in found)
    assert not any(
        "disk" in line for line in missing(config, [], disk=1, nproc=1, gpu_gib=80, reachable=False)
    )
