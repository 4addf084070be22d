"""The policy stage on a tiny run: what it makes, for several policies too, and what a change builds again."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import policy_world
import pytest
from policy_world import sft, wic
from preforch_models.manifest import read_manifest, verify
from preforch_models.policy_card import read_policy_card
from preforch_training.config import RunConfig
from preforch_training.pipeline import open_run
from preforch_training.policy import stage
from preforch_training.policy.checkpoint import read_policy_info
from preforch_training.run import Run
from small_world import build

BOTH = {"wic": wic(online_rounds=2), "plain": sft()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig, policy_world.ScriptedSampler]:
    """Two policies: one of two online rounds, one that knows no weights."""
    folder = tmp_path_factory.mktemp("policy") / "run"
    run, config = policy_world.write_inputs(folder, policy_world.make_config(folder, policies=BOTH))
    sampler = policy_world.ScriptedSampler()
    build("policy", run, config, sampler=sampler)
    return run, config, sampler


Built = tuple[Run, RunConfig, policy_world.ScriptedSampler]


def built_at(run: Run) -> dict[str, int]:
    """When each policy artifact was made, by its path."""
    manifests = (run.folder / "policy").rglob("manifest.json")
    return {
        path.parent.relative_to(run.folder).as_posix(): path.stat().st_mtime_ns
        for path in manifests
        if not path.parent.name.startswith(".")
    }


def rebuilt(built: Built, **change: Any) -> set[str]:
    """The artifacts that a changed config builds anew, in a copy of the run."""
    run, _, sampler = built
    policies = {**BOTH, **change.pop("policies", {})}
    with tempfile.TemporaryDirectory(dir=run.folder.parent) as folder:
        copied = Path(shutil.copytree(run.folder, Path(folder) / "run"))
        config = policy_world.make_config(copied, policies=policies, serve="wic", **change)
        copy = open_run(config)
        before = built_at(copy)
        build("policy", copy, config, sampler=sampler)
        after = built_at(copy)
    return {name for name in after if after[name] != before.get(name)}


def test_every_round_is_a_verified_policy(built: Built) -> None:
    run, config, _ = built
    for number in (0, 1, 2):
        folder = run.policy_round("wic", number)
        manifest = verify(folder, kind="policy")
        assert read_policy_card(folder).context_format == config.context_format
        assert read_policy_card(folder).name == "wic"
        assert {"model.safetensors", "tokenizer.json", "metrics.jsonl"} <= set(manifest.files)
    verify(run.policy_base, kind="policy-base")


def test_every_policy_has_its_own_folder_and_says_what_made_it(built: Built) -> None:
    run, config, _ = built
    assert sorted(built_at(run)) == [
        "policy/base",
        "policy/plain/round-0",
        "policy/wic/round-0",
        "policy/wic/round-1",
        "policy/wic/round-2",
    ]
    found = {}
    for name, policy in config.policies.items():
        for folder in stage.folders(run, name, policy):
            info = read_policy_info(folder)
            found[folder.relative_to(run.folder / "policy").as_posix()] = (info.name, info.kind, info.round)
    assert found == {
        "plain/round-0": ("plain", "sft", 0),
        "wic/round-0": ("wic", "wic", 0),
        "wic/round-1": ("wic", "wic", 1),
        "wic/round-2": ("wic", "wic", 2),
    }
    base = read_policy_info(run.policy_base)
    assert (base.name, base.kind, base.round) == ("base", "base", None)


def test_a_second_build_does_nothing(built: Built) -> None:
    run, config, sampler = built
    calls, before = sampler.calls, built_at(run)
    build("policy", run, config, sampler=sampler)
    assert sampler.calls == calls
    assert built_at(run) == before


# test_policy_recipes says which setting reaches which artifact; here is one of each kind, really built.


def test_an_online_setting_builds_the_online_rounds_again_and_not_the_offline_one(built: Built) -> None:
    changed = wic(online_rounds=2, online={"prompts": 5})
    assert rebuilt(built, policies={"wic": changed}) == {"policy/wic/round-1", "policy/wic/round-2"}


def test_how_responses_are_drawn_concerns_online_rounds_only(built: Built) -> None:
    assert rebuilt(built, shared={"temperature": 0.9}) == {"policy/wic/round-1", "policy/wic/round-2"}


def test_what_the_offline_round_reads_builds_every_round_again(built: Built) -> None:
    changed = wic(online_rounds=2, offline={"steps": 3})
    assert rebuilt(built, policies={"wic": changed}) == {f"policy/wic/round-{n}" for n in (0, 1, 2)}


def test_one_more_round_keeps_those_that_are_there(built: Built) -> None:
    assert rebuilt(built, policies={"wic": wic(online_rounds=3)}) == {"policy/wic/round-3"}


def test_a_policy_more_builds_nothing_of_the_others_again(built: Built) -> None:
    assert rebuilt(built, policies={"more": sft(steps=2)}) == {"policy/more/round-0"}


def test_a_change_of_one_policy_leaves_the_others(built: Built) -> None:
    assert rebuilt(built, policies={"plain": sft(learning_rate=2e-3)}) == {"policy/plain/round-0"}


@pytest.mark.parametrize(
    "section", [{"report": {"sweep_prompts": 3}}, {"bundle": {"golden_prompts": 3}}], ids=str
)
def test_other_sections_are_nothing_to_a_policy(built: Built, section: dict[str, Any]) -> None:
    assert rebuilt(built, **section) == set()


def test_the_base_is_one_for_all_and_each_policy_starts_from_it(built: Built) -> None:
    run, _, _ = built
    inputs = [read_manifest(run.policy_round(name, 0)).inputs["previous"] for name in ("wic", "plain")]
    assert inputs[0] == inputs[1]
    assert read_manifest(run.policy_round("wic", 1)).inputs["previous"] not in inputs


def test_the_base_says_what_it_is_made_of_and_is_as_long_as_asked(built: Built) -> None:
    run, config, _ = built
    assert config.policy is not None
    manifest = read_manifest(run.policy_base)
    assert manifest.config == {
        "base": {
            "base": "demo",
            "revision": "main",
            "template": config.policy.template,
            "scratch": config.policy.scratch.model_dump(),
            "max_model_len": config.policy.max_model_len,
        },
        "context": config.context_format.model_dump(mode="json"),
        "seed": config.run.seed,
        "origin": "demo",
    }
    model = json.loads((run.policy_base / "config.json").read_text(encoding="utf-8"))
    assert model["max_position_embeddings"] == config.policy.max_model_len
    assert set(manifest.counts) == {"parameters", "tokens", "new_tokens"}
    assert manifest.counts["tokens"] == model["vocab_size"]


def test_the_vocabulary_comes_from_training_prompts_and_their_responses_alone(built: Built) -> None:
    run, _, _ = built
    texts = set(stage.training_texts(run))
    train = {prompt.text for prompt in run.prompts("train")}
    others = {prompt.text for prompt in run.prompts() if prompt.split != "train"}
    responses = {side for pair in run.pairs(split="train") for side in (pair.chosen, pair.rejected)}
    assert min(len(train), len(others), len(responses)) > 0
    assert texts == train | responses
    assert texts.isdisjoint(others)


def test_no_policy_is_made_where_the_config_has_none(tmp_path: Path) -> None:
    config = policy_world.make_config(tmp_path / "run", policies={})
    build("policy", open_run(config), config)
    assert not (tmp_path / "run").exists()


def test_rounds_that_an_earlier_configuration_left_are_removed(
    built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, sampler = built
    copied = Path(shutil.copytree(run.folder, tmp_path / "run"))
    policies = {**BOTH, "wic": wic(online_rounds=1)}
    config = policy_world.make_config(copied, policies=policies, serve="wic")
    build("policy", open_run(config), config, sampler=sampler)
    left = sorted(folder.name for folder in (copied / "policy" / "wic").iterdir() if folder.is_dir())
    assert left == ["round-0", "round-1"]
    assert "policy/wic/round-2: removed, the policy has no such part now" in capsys.readouterr().err
