"""The paper's recipes, each run whole on tiny models of the same architectures (`recipe_world`).

Stages and rounds of all three with a scripted sampler. The long test (`make test-slow`): all three by the
command with real vLLM, two killed and continued, two by two processes; their policies start from a LLaMA-2 as
in the recipe, from a Mistral and from a Qwen3.
"""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
import recipe_world
from kill_resume import differences, kill_and_continue, train_command, work_seconds
from policy_world import ScriptedSampler
from preforch_models.bundle import read_bundle
from preforch_models.manifest import read_manifest, verify
from preforch_models.policy_card import check_match, read_policy_card
from preforch_training.config import read_config
from preforch_training.pipeline import open_run
from preforch_training.policy.settings.wic import OnlineRound, WicPolicy
from preforch_training.records import Sample, read_records
from preforch_training.report.records import read_report
from preforch_training.reward.config import ClassifierReward
from preforch_training.stages import STAGES
from recipe_world import CONFIGS, RECIPES, dry_run
from small_world import build

ARTIFACTS = ("data", "scores", "orchestrator", "policy/base", "bundle", "report")
ROUNDS = ("policy/wic/round-0", "policy/wic/round-1", "policy/wic/round-2")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_values_of_the_paper_and_of_ric(name: str) -> None:
    config = read_config(CONFIGS / f"{name}.toml")
    assert config.preset == "paper"
    f, policy, wic = config.orchestrator, config.policy, config.policies["wic"]
    assert policy is not None
    assert isinstance(wic, WicPolicy)
    assert isinstance(wic.online, OnlineRound)
    # [paper]
    assert (f.encoder, f.learning_rate, f.batch_size, f.tau) == ("FacebookAI/xlm-roberta-base", 1e-5, 32, 0.1)
    assert (f.target, f.loss, f.patience, f.confidence) == ("chosen_softmax", "reverse", "off", "off")
    assert config.reward.folds == "off"
    assert (wic.offline.steps, wic.online_rounds) == (10_000, 2)
    assert (wic.online.prompts, wic.online.steps) == (5_000, 5_000)
    assert (wic.tau, wic.offline.responses, wic.online.random_weight_share) == (0.1, "all", 0)
    # [RiC]
    assert config.scores.calibration == "zscore"
    assert (policy.temperature, policy.top_p, wic.online.samples_per_prompt) == (0.7, 0.9, 1)
    assert (wic.online.keep, wic.quality_quantile) == ("any_above_quantile", 0.7)
    assert (wic.offline.learning_rate, wic.online.learning_rate) == (1.4e-4, 1e-5)
    for part in (wic.offline, wic.online):
        assert (part.lora_rank, part.lora_alpha, part.batch_size, part.weight_decay) == (64, 128, 8, 0.01)
        assert (part.lora_dropout, part.lora_targets) == (0.05, ("q_proj", "v_proj"))


def test_each_public_reward_model_reads_what_ric_gives_it() -> None:
    found = {
        reward.model: (reward.text, reward.label, bool(reward.prompt_after))
        for name in RECIPES
        for reward in read_config(CONFIGS / f"{name}.toml").reward.objectives.values()
        if isinstance(reward, ClassifierReward)
    }
    assert found == {
        "Ray2333/gpt2-large-helpful-reward_model": ("hh", 0, False),
        "Ray2333/gpt2-large-harmless-reward_model": ("hh", 0, False),
        "mohameddhiab/humor-no-humor": ("response", 1, False),
        "Tristan/gpt2_reward_summarization": ("summary", 0, True),
        "CogComp/bart-faithful-summary-detector": ("pair_reversed", 1, True),
        "OpenAssistant/reward-model-deberta-v3-large-v2": ("pair", 0, False),
    }


@pytest.mark.parametrize("name", RECIPES)
def test_every_model_and_data_set_of_a_recipe_has_a_tiny_one(name: str) -> None:
    raw = tomllib.loads((CONFIGS / f"{name}.toml").read_text(encoding="utf-8"))
    models = {reward.get("model", reward.get("base")) for reward in raw["reward"].values()}
    models |= {raw["policy"]["base"], raw["orchestrator"]["encoder"]}
    assert models <= recipe_world.MODELS.keys()
    assert {source["dataset"] for source in raw["data"]["sources"]} <= recipe_world.DATASETS.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_through_every_stage_and_every_round(tmp_path: Path, name: str) -> None:
    recipe = dry_run(tmp_path, name)
    config = read_config(recipe.config, settings=(f"run.folder={tmp_path / 'run'}", *recipe.settings))
    run, sampler = open_run(config), ScriptedSampler()
    for stage in STAGES:
        build(stage, run, config, sampler)
    check_run(run.folder, config.names)
    for folder in ROUNDS[1:]:
        samples = read_manifest(run.folder / folder).counts["samples"]
        assert samples == 6, "one response to each of the prompts of a round"


def check_run(folder: Path, names: tuple[str, ...]) -> None:
    """All artifacts whole, bundle and policy belong together, the report says what a reader must know."""
    for artifact in (*ARTIFACTS, *ROUNDS, *(f"reward/{name}" for name in names)):
        verify(folder / artifact)
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("*.work"))
    check_match(read_bundle(folder / "bundle"), read_policy_card(folder / ROUNDS[-1]))
    report = read_report(folder / "report")
    assert report.preset == "paper"
    in_sample = [line for line in report.warnings if "in-sample" in line]
    trained = [name for name in names if list((folder / "reward" / name).glob("*.safetensors"))]
    assert len(in_sample) == bool(trained)
    assert all(name in line for line in in_sample for name in trained)
    if trained:
        assert {entry.objective for entry in report.rewards.accuracies} == set(names)


def check_run_by_command(folder: Path, name: str) -> None:
    """A whole run, with responses by vLLM in every round."""
    check_run(folder, read_config(CONFIGS / f"{name}.toml").names)
    asked = [read_records(folder / part / "samples.jsonl", Sample) for part in ROUNDS[1:]]
    assert [len(samples) for samples in asked] == [6, 6]
    assert all(sample.response for samples in asked for sample in samples)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "base", "again"),
    [
        ("hh-assistant", None, ("killed", "pair")),
        ("reddit-summary", "mistral", ("killed",)),
        ("ultrafeedback", "qwen3", ("pair",)),
    ],
)
def test_a_recipe_ends_alike_when_it_is_killed_and_by_two_processes(
    tmp_path: Path, name: str, base: str | None, again: tuple[str, ...]
) -> None:
    recipe = dry_run(tmp_path, name, base=base)
    whole, killed, pair = (tmp_path / part for part in ("whole", "killed", "pair"))
    # What is dropped is drawn by each process.
    settings = [*recipe.settings, *(f"policies.wic.{part}.lora_dropout=0" for part in ("offline", "online"))]
    subprocess.run(train_command(recipe.config, whole, settings), check=True)
    check_run_by_command(whole, name)
    if "killed" in again:
        # Few, so that they come as far as the rounds: vLLM alone starts for as long as the early stages take.
        seconds = work_seconds(whole)
        assert kill_and_continue(recipe.config, killed, settings, kills=5, seconds=seconds, seed=len(name)), (
            "no kill came after the first artifact"
        )
        assert differences(whole, killed) == []
    if "pair" in again:
        subprocess.run([*train_command(recipe.config, pair, settings), "--nproc", "2"], check=True)
        check_run(pair, read_config(recipe.config).names)
        # Later rounds learn from what the first ones sampled, which a last bit may change.
        for part in ("orchestrator", ROUNDS[0]):
            one, two = losses(whole / part), losses(pair / part)
            assert len(one) >= 2
            assert two == pytest.approx(one, rel=1e-3)


def losses(artifact: Path) -> list[float]:
    """Training and validation losses in the order of their steps."""
    entries = map(json.loads, (artifact / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [entry[key] for entry in entries for key in ("loss", "eval_loss") if key in entry]
