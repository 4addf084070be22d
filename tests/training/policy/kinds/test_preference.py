"""Policy kind `preference`: the overall pairs of training prompts, from the policy that it names."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import policy_world
import pytest
from policy_world import preference, sft, wic
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.manifest import digest, read_manifest, verify
from preforch_models.policy_card import read_policy_card
from preforch_training.policy.kinds.pair_rows import pair_rows, with_reference
from preforch_training.policy.log_probabilities import log_probabilities
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.scores.calibration import CalibratedRewards
from pydantic import ValidationError
from safetensors.torch import load_file
from small_world import NoSampler, build

POLICIES = {
    "plain": sft(),
    "dpo": preference(start="plain"),
    "simpo": preference(loss="simpo", beta=2.5, gamma=1.0),
    "kto": preference(loss="kto", start="plain"),
    "adpo": preference(loss="adpo", start="plain"),
    "modpo": preference(
        loss="modpo",
        start="plain",
        beta=0.5,
        objective="humor",
        weights={"humor": 0.5, "helpful": 0.3, "harmless": 0.2},
    ),
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> PolicyTask:
    """A run with an `sft` policy and two that learn from pairs, which are built."""
    folder = tmp_path_factory.mktemp("preference") / "run"
    config = policy_world.make_config(folder, policies=POLICIES)
    run, _ = policy_world.write_inputs(folder, config)
    build("policy", run, config)
    assert config.policy is not None
    return PolicyTask(run, config.policy, "dpo", NoSampler(), config.policies)


def test_its_rows_are_the_overall_pairs_of_training_prompts(task: PolicyTask) -> None:
    start = task.start("plain")
    reader, prompts = PolicyTokenizer(start), task.prompts()
    found = [
        (reader.text(row.prompt), reader.text(row.chosen), reader.text(row.rejected))
        for row in pair_rows(task, start)
    ]
    assert found == [
        (
            f"<|im_start|>user\n{prompts[pair.prompt_id].text}<|im_end|>\n<|im_start|>assistant\n",
            pair.chosen,
            pair.rejected,
        )
        for pair in task.run.pairs("overall", "train")
    ]
    assert len(found) > 10
    manifest = verify(task.round(0), kind="policy")
    assert manifest.counts == {"pairs": len(found), "too_long": 0}
    assert math.isfinite(manifest.metrics["loss"])
    assert 0 <= manifest.metrics["pair_accuracy"] <= 1


@pytest.mark.parametrize(
    ("name", "start"),
    [("dpo", "plain"), ("simpo", "base"), ("kto", "plain"), ("modpo", "plain"), ("adpo", "plain")],
)
def test_it_starts_from_the_policy_that_it_names(task: PolicyTask, name: str, start: str) -> None:
    folder, previous = task.start(name), task.start(start)
    assert read_manifest(folder).inputs["previous"] == digest(read_manifest(previous).files)
    before, after = (load_file(place / "model.safetensors") for place in (previous, folder))
    assert before.keys() == after.keys()
    steps = [float((before[key] - after[key]).abs().max()) for key in before]
    # Four steps at 1e-3 lead no farther than that.
    assert 0 < max(steps) < 0.01
    other = load_file(task.start("base" if start == "plain" else "plain") / "model.safetensors")
    assert max(float((other[key] - after[key]).abs().max()) for key in other) > 0


def test_its_card_is_fixed(task: PolicyTask) -> None:
    for name in ("dpo", "simpo", "kto", "modpo"):
        card = read_policy_card(task.start(name))
        assert card.conditioning == FixedConditioning()
        assert card.objectives == policy_world.NAMES


def test_modpo_learns_from_one_objective_and_is_held_by_what_the_others_want(task: PolicyTask) -> None:
    config = task.policies["modpo"]
    assert isinstance(config, PreferencePolicy)
    start, prompts = task.start("plain"), task.prompts()
    rows = pair_rows(task, start, objective="humor")
    pairs = list(task.run.each_pair("humor", "train"))
    assert [row.source for row in rows] == pairs != list(task.run.each_pair("overall", "train"))
    shifted = with_reference(task, start, rows, config)
    assert with_reference(task, start, rows, PreferencePolicy.model_validate(preference())) == rows
    row, pair, end = shifted[3], pairs[3], PolicyTokenizer(start).end_id
    wanted = CalibratedRewards(task.run)([prompts[pair.prompt_id]] * 2, [pair.chosen, pair.rejected])
    logs = log_probabilities(start, [row.prompt] * 2, [(*row.chosen, end), (*row.rejected, end)])
    expected = logs + wanted @ np.array([0.3, 0.2, 0.0]) / 0.5
    assert row.reference == pytest.approx(tuple(expected), abs=1e-3)
    made = task.run.policy_round("modpo", 0)
    assert verify(made, kind="policy").counts["pairs"] == len(pairs)
    assert read_manifest(made).inputs.keys() >= {"scores", "reward/helpful"}


def test_adpo_says_how_many_labels_it_read(task: PolicyTask) -> None:
    """All, where the policy has hardly moved from its reference."""
    config = task.policies["adpo"]
    assert isinstance(config, PreferencePolicy)
    assert config.query_margin == 0.9
    start = task.start("plain")
    rows = pair_rows(task, start)
    row, end = with_reference(task, start, rows, config)[2], PolicyTokenizer(start).end_id
    logs = log_probabilities(start, [row.prompt] * 2, [(*row.chosen, end), (*row.rejected, end)])
    assert row.reference == pytest.approx(tuple(logs), abs=1e-3)
    metrics = verify(task.run.policy_round("adpo", 0), kind="policy").metrics
    assert metrics["labels_asked"] == 4 * 4
    assert "labels_asked" not in read_manifest(task.round(0)).metrics


def test_pairs_that_are_too_long_are_left_out_and_counted(task: PolicyTask, tmp_path: Path) -> None:
    rows = pair_rows(task, task.start("plain"))
    limit = sorted(row.length for row in rows)[len(rows) // 2] + 1
    shared = {"max_model_len": limit, "max_response_tokens": 8}
    config = policy_world.make_config(tmp_path / "run", policies={"dpo": preference()}, shared=shared)
    run, _ = policy_world.write_inputs(tmp_path / "run", config)
    build("policy", run, config)
    counts = read_manifest(run.policy_round("dpo", 0)).counts
    assert 0 < counts["too_long"] < len(rows)
    assert counts["pairs"] + counts["too_long"] == len(rows)


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (
            {"dpo": preference(start="plain"), "plain": sft()},
            r"policies\.dpo\.start is 'plain'; allowed are ",
        ),
        ({"wic": wic(), "dpo": preference(start="wic")}, r"start is 'wic'; allowed are \['base'\]"),
        ({"dpo": preference(start="dpo")}, "start is 'dpo'"),
        ({"dpo": preference(loss="simpo")}, "gamma is None: loss 'simpo' needs it"),
        ({"dpo": preference(gamma=1.0)}, "gamma is 1.0: loss 'simpo' needs it, 'dpo' is given"),
        ({"dpo": preference(beta=0.0)}, "beta"),
        ({"dpo": preference(query_margin=0.5)}, "query_margin is 0.5: loss 'adpo' needs it, 'dpo' is given"),
        (
            {"dpo": preference(loss="ppo")},
            "'dpo', 'ipo', 'wpo', 'simpo', 'kto', 'modpo', 'adpo' or 'selective_dpo'",
        ),
        ({"dpo": preference(loss="modpo")}, "objective is None: loss 'modpo' needs it, 'modpo' is given"),
        ({"dpo": preference(objective="humor")}, "objective is humor: loss 'modpo' needs it, 'dpo' is given"),
        (
            {"dpo": preference(loss="modpo", objective="humor", weights={"helpful": 1.0})},
            "that of 'humor' must be above 0",
        ),
        (
            {"dpo": preference(loss="modpo", objective="wit", weights={"wit": 1.0})},
            "names the objective 'wit'",
        ),
    ],
)
def test_settings_that_cannot_work_are_named(
    policies: dict[str, dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=message):
        policy_world.make_config(tmp_path, policies=policies)


def test_it_learns_what_is_preferred(task: PolicyTask, tmp_path: Path) -> None:
    """The likelihood of chosen responses rises against that of rejected ones."""
    training = {"steps": 30, "learning_rate": 3e-3, "batch_size": 8}
    config = policy_world.make_config(
        tmp_path / "run", policies={"dpo": preference(training=training, beta=0.5)}
    )
    run, _ = policy_world.write_inputs(tmp_path / "run", config)
    build("policy", run, config)
    assert read_manifest(run.policy_round("dpo", 0)).metrics["loss"] < 0.9 * math.log(2)
