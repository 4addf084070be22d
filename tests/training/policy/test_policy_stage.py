"""The policy stage on a tiny run: its artifacts, what it skips, and what a kill leaves to redo."""

from pathlib import Path

import policy_world
import pytest
from preforch_models.manifest import verify
from preforch_models.policy_card import read_policy_card
from preforch_training.config import RunConfig
from preforch_training.hf_trainer import TrainingError
from preforch_training.pipeline import open_run
from preforch_training.records import Sample, read_records
from preforch_training.run import Run
from small_world import build


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig, policy_world.ScriptedSampler]:
    run, config = policy_world.write_inputs(tmp_path_factory.mktemp("policy") / "run")
    sampler = policy_world.ScriptedSampler()
    build("policy", run, config, sampler=sampler)
    return run, config, sampler


Built = tuple[Run, RunConfig, policy_world.ScriptedSampler]


def test_every_round_is_a_verified_policy(built: Built) -> None:
    run, config, _ = built
    for number in (0, 1):
        folder = run.policy_round("wic", number)
        manifest = verify(folder, kind="policy")
        assert read_policy_card(folder).context_format == config.context_format
        assert read_policy_card(folder).name == "wic"
        assert {"model.safetensors", "tokenizer.json", "metrics.jsonl"} <= set(manifest.files)
    verify(run.policy_base, kind="policy-base")


def test_the_samples_of_a_round_say_what_was_kept(built: Built) -> None:
    run, _, _ = built
    samples = read_records(run.policy_round("wic", 1) / "samples.jsonl", Sample)
    counts = verify(run.policy_round("wic", 1)).counts
    assert len(samples) == counts["samples"] == 18
    assert sum(s.kept for s in samples) == counts["kept"] > 0
    assert not any(s.kept for s in samples if s.response == "Let me think about it.")
    assert {s.origin for s in samples} == {"orchestrator", "dirichlet"}


def test_a_second_build_does_nothing(built: Built) -> None:
    run, config, sampler = built
    calls = sampler.calls
    before = (run.policy_round("wic", 1) / "manifest.json").stat().st_mtime_ns
    build("policy", run, config, sampler=sampler)
    assert sampler.calls == calls
    assert (run.policy_round("wic", 1) / "manifest.json").stat().st_mtime_ns == before


def test_a_change_of_the_online_round_keeps_the_offline_round(built: Built) -> None:
    run, _, sampler = built
    offline = (run.policy_round("wic", 0) / "manifest.json").stat().st_mtime_ns
    other = policy_world.make_config(run.folder, temperature=0.9, original_share=0.0)
    build("policy", run, other, sampler=sampler)
    assert (run.policy_round("wic", 0) / "manifest.json").stat().st_mtime_ns == offline
    assert verify(run.policy_round("wic", 1)).counts["originals"] == 0


def test_samples_survive_a_training_that_did_not_end(tmp_path: Path) -> None:
    unstable = policy_world.SFT | {"learning_rate": 1e30}
    run, config = policy_world.write_inputs(tmp_path / "run", online=unstable)
    sampler = policy_world.ScriptedSampler()
    for _ in range(2):
        with pytest.raises(TrainingError, match="at step"):
            build("policy", run, config, sampler=sampler)
    assert sampler.calls == 1
    assert not run.policy_round("wic", 1).exists()


def test_the_paper_preset_keeps_any_reward_above_its_quantile(tmp_path: Path) -> None:
    paper = {
        "offline_responses": "all",
        "offline_tau": 0.1,
        "samples_per_prompt": 1,
        "keep": "any_above_quantile",
    }
    run, config = policy_world.write_inputs(
        tmp_path / "run", random_weight_share=0.0, quality_quantile=0.1, **paper
    )
    build("policy", run, config, sampler=policy_world.ScriptedSampler())
    assert verify(run.policy_round("wic", 0)).counts["rows"] == 80
    samples = read_records(run.policy_round("wic", 1) / "samples.jsonl", Sample)
    assert len(samples) == 6
    assert {s.origin for s in samples} == {"orchestrator"}


def test_no_policy_is_made_where_the_config_says_off(tmp_path: Path) -> None:
    config = policy_world.make_config(tmp_path / "run").model_copy(update={"policy": "off"})
    build("policy", open_run(config), config)
    assert not (tmp_path / "run").exists()
