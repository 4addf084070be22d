"""Policy kind `rl`: its runs and their mean, what it asks, what it is made from."""

import json
from pathlib import Path
from typing import Any

import policy_world
import pytest
from policy_world import ric, rl, sft, wic
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.manifest import digest, read_manifest, verify
from preforch_models.policy_card import read_policy_card
from preforch_training.policy.kinds.rl import conditioning, draw_asks
from preforch_training.policy.settings.rl import RlPolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from pydantic import ValidationError
from safetensors.torch import load_file
from small_world import NoSampler, build

POLICIES = {
    "wic": wic(online_rounds=0),
    "plain": sft(),
    "read": rl(
        start="wic/round-0",
        weights="context",
        random_weight_share=0.5,
        runs=2,
        repetition_penalty=0.5,
        unfinished_penalty=1.0,
    ),
    "pro": rl(start="plain"),
    "funny": rl(start="plain", weights={"humor": 1.0}, algorithm="grpo", training={"lora_rank": 2}),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PolicyTask]:
    """A run whose policies are built, as the task of each."""
    folder = tmp_path_factory.mktemp("rl") / "run"
    config = policy_world.make_config(folder, policies=POLICIES, serve="read")
    run, _ = policy_world.write_inputs(folder, config)
    build("policy", run, config)
    assert config.policy is not None
    return {name: PolicyTask(run, config.policy, name, NoSampler(), config.policies) for name in POLICIES}


def settings(task: PolicyTask) -> RlPolicy:
    found = task.policies[task.name]
    assert isinstance(found, RlPolicy)
    return found


def test_a_policy_of_several_runs_is_their_mean(tasks: dict[str, PolicyTask]) -> None:
    run = tasks["read"].run
    first, second = (load_file(run.policy_run("read", n) / "model.safetensors") for n in (1, 2))
    mean = load_file(tasks["read"].round(0) / "model.safetensors")
    start = load_file(tasks["wic"].round(0) / "model.safetensors")
    assert first.keys() == mean.keys()
    for name in first:
        assert float((mean[name] - (first[name] + second[name]) / 2).abs().max()) < 1e-6
    assert max(float((first[name] - second[name]).abs().max()) for name in first) > 1e-5
    # Four steps at 1e-3 lead no farther than that from where they began.
    assert max(float((first[name] - start[name]).abs().max()) for name in first) < 0.01
    assert verify(tasks["read"].round(0), kind="policy").counts == {"runs": 2}


def test_a_run_says_what_it_sampled_and_how_it_went(tasks: dict[str, PolicyTask]) -> None:
    run = tasks["read"].run
    manifest = verify(run.policy_run("read", 1), kind="policy")
    assert manifest.counts == {"prompts": 8, "samples": 16}
    names = {"utility", "stray_sentences", "unfinished", "kl", "weights.distance_from_uniform"}
    assert manifest.metrics.keys() == names | {f"reward.{name}" for name in policy_world.NAMES}
    assert (run.policy_run("read", 1) / "metrics.jsonl").exists()
    curve = [
        json.loads(line)
        for line in (run.policy_run("read", 1) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    # A policy is its own reference before it is trained.
    assert curve[0]["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("name", "start"), [("read", "wic"), ("pro", "plain"), ("funny", "plain")])
def test_it_starts_from_what_it_names_and_says_whether_it_reads_weights(
    tasks: dict[str, PolicyTask], name: str, start: str
) -> None:
    task = tasks[name]
    folder = task.run.policy_run(name, 1) if name == "read" else task.round(0)
    previous = read_manifest(tasks[start].round(0))
    assert read_manifest(folder).inputs["previous"] == digest(previous.files)
    expected = ContextConditioning(encoding="levels") if name == "read" else FixedConditioning()
    assert read_policy_card(folder).conditioning == expected
    assert read_policy_card(task.round(0)).conditioning == expected


def test_what_a_policy_reads_is_what_its_rewards_are_weighed_by(tasks: dict[str, PolicyTask]) -> None:
    task = tasks["read"]
    reader = PolicyTokenizer(tasks["wic"].round(0), conditioning(task, settings(task)))
    asks = draw_asks(task, settings(task), 0, reader)
    assert len(asks) == 8
    for ask in asks:
        assert ask.weights == tuple(ask.context.values())
        assert ask.messages == ask.prompt.messages
        text = reader.prompt_text(ask.messages, ask.context)
        assert f"<W3> {ask.context['humor']:.2f}" in text
    assert asks == draw_asks(task, settings(task), 0, reader)
    assert asks != draw_asks(task, settings(task), 1, reader)


def test_a_policy_that_reads_no_weights_is_told_none(tasks: dict[str, PolicyTask]) -> None:
    task = tasks["pro"]
    reader = PolicyTokenizer(tasks["plain"].round(0), conditioning(task, settings(task)))
    asks = draw_asks(task, settings(task), 0, reader)
    assert all(ask.context == {} for ask in asks)
    assert len({ask.weights for ask in asks}) > 1
    assert "<W" not in reader.prompt_text(asks[0].messages, asks[0].context)


def test_a_share_of_the_words_that_a_policy_reads_are_others(tasks: dict[str, PolicyTask]) -> None:
    task = tasks["pro"]
    reader = PolicyTokenizer(tasks["plain"].round(0))
    noisy = settings(task).model_copy(update={"prompt_noise": 0.5})
    asks = draw_asks(task, noisy, 0, reader)
    words = [ask.prompt.text.split() for ask in asks]
    read = [ask.messages[-1].content.split() for ask in asks]
    assert [len(each) for each in words] == [len(each) for each in read]
    pairs = [pair for one, other in zip(words, read, strict=True) for pair in zip(one, other, strict=True)]
    assert 0.2 < sum(one != other for one, other in pairs) / len(pairs) < 0.7
    assert {other for _, other in pairs} <= {w for p in task.prompts().values() for w in p.text.split()}
    # What a prompt is scored as, and weighed by, is the prompt itself.
    plain = draw_asks(task, settings(task), 0, reader)
    assert [(ask.prompt, ask.weights) for ask in asks] == [(ask.prompt, ask.weights) for ask in plain]
    assert asks == draw_asks(task, noisy, 0, reader)


def test_prompts_come_again_when_all_had_their_turn(tasks: dict[str, PolicyTask]) -> None:
    task = tasks["pro"]
    reader = PolicyTokenizer(tasks["plain"].round(0))
    long = settings(task).model_copy(
        update={"training": settings(task).training.model_copy(update={"steps": 30})}
    )
    ids = [ask.prompt.id for ask in draw_asks(task, long, 0, reader)]
    count = len(task.prompts())
    assert len(ids) == 60
    assert len(set(ids[:count])) == count < 60
    assert ids[count:] == ids[: 60 - count]


def test_runs_that_are_no_longer_asked_for_are_removed(tmp_path: Path) -> None:
    run, config = policy_world.write_inputs(
        tmp_path / "run", policy_world.make_config(tmp_path / "run", policies={"one": rl(runs=2)})
    )
    build("policy", run, config)
    assert run.policy_run("one", 2).exists()
    build("policy", run, policy_world.make_config(tmp_path / "run", policies={"one": rl(runs=1)}))
    assert [path.name for path in sorted((tmp_path / "run" / "policy" / "one").iterdir())] == ["round-0"]
    assert read_manifest(run.policy_round("one", 0)).counts["samples"] == 16


def test_a_sharded_model_cannot_be_reinforced(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"policies\.a is of kind 'rl' and .*allowed is 'ddp'"):
        policy_world.make_config(tmp_path, policies={"a": rl()}, distributed={"sharding": "fsdp2"})


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"a": rl(weights="context", start="plain"), "plain": sft()}, "start is 'plain'; allowed are"),
        (
            {"plain": sft(), "a": rl(weights="context", start="plain")},
            r"allowed are \['base'\].*read weights by 'context'",
        ),
        # Its weights are written as scores.
        ({"ric": ric(), "a": rl(weights="context", start="ric")}, r"allowed are \['base'\].*by 'context'"),
        ({"wic": wic(), "a": rl(start="wic")}, r"allowed are \['base'\].*read no weights"),
        ({"a": rl(training={"lora_rank": 2, "lora_dropout": 0.1})}, "lora_dropout is 0.1: .*allowed is 0"),
        ({"wic": wic(), "a": rl(start="wic/round-2", weights="context")}, "'wic/round-1'"),
        ({"a": rl(weights={"wit": 1.0})}, "names the objective 'wit'; allowed are"),
        ({"a": rl(weights={"humor": 0.5})}, "weights of at least 0 that sum to 1"),
        ({"a": rl(weights={"humor": 1.5, "helpful": -0.5})}, "weights of at least 0 that sum to 1"),
        ({"a": rl(random_weight_share=0.5)}, "only 'context' does"),
        ({"a": rl(samples_per_prompt=3)}, "batch_size is 4: it counts responses"),
        ({"a": rl(samples_per_prompt=1)}, "samples_per_prompt"),
        ({"a": rl(combine="mean")}, "'sum', 'gdpo', 'dvao' or 'saturation'"),
    ],
)
def test_settings_that_cannot_work_are_named(
    policies: dict[str, dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=message):
        policy_world.make_config(tmp_path, policies=policies, serve="a")
