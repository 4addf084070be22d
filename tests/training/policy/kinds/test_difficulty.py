"""SelectiveDPO: trainings that did not see a pair judge it, the easiest pairs are learned from."""

from pathlib import Path

import numpy as np
import policy_world
import pytest
from policy_world import preference, sft
from preforch_models.manifest import digest, read_manifest, verify
from preforch_training.config import RunConfig
from preforch_training.policy.kinds.difficulty import PairLoss, easiest_first, first_half
from preforch_training.policy.kinds.pair_rows import pair_rows
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.records import read_records, write_records
from preforch_training.run import Run
from pydantic import ValidationError
from small_world import NoSampler, build

POLICIES = {"plain": sft(), "easy": preference(loss="selective_dpo", start="plain", seeds=2)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig]:
    folder = tmp_path_factory.mktemp("difficulty") / "run"
    config = policy_world.make_config(folder, policies=POLICIES)
    run, _ = policy_world.write_inputs(folder, config)
    build("policy", run, config)
    return run, config


def losses(run: Run, number: int) -> dict[str, float]:
    records = read_records(run.policy_run("easy", number) / "losses.jsonl", PairLoss)
    return {record.pair_id: record.loss for record in records}


def test_two_halves_of_the_prompts_judge_each_other_for_every_seed(built: tuple[Run, RunConfig]) -> None:
    run, _ = built
    pairs = {pair.id: pair.prompt_id for pair in run.pairs("overall", "train")}
    halves = [losses(run, number) for number in (1, 2, 3, 4)]
    assert not run.policy_run("easy", 5).exists()
    for number, (one, other) in enumerate([(halves[0], halves[1]), (halves[2], halves[3])]):
        assert sorted([*one, *other]) == sorted(pairs)
        assert not {pairs[pair] for pair in one} & {pairs[pair] for pair in other}
        counts = verify(run.policy_run("easy", 2 * number + 1), kind="difficulty").counts
        assert counts == {"pairs": len(other), "judged": len(one)}
    assert halves[0].keys() not in (halves[2].keys(), halves[3].keys())
    assert all(0 < loss < 2 for half in halves for loss in half.values())


def test_the_easiest_half_is_learned_from(built: tuple[Run, RunConfig]) -> None:
    run, config = built
    policy = config.policies["easy"]
    assert isinstance(policy, PreferencePolicy)
    assert policy.share == 0.5
    assert config.policy is not None
    task = PolicyTask(run, config.policy, "easy", NoSampler(), config.policies)
    rows = pair_rows(task, task.start("plain"))
    judged = [run.policy_run("easy", number) for number in (1, 2, 3, 4)]
    used = [row.source.id for row in easiest_first(rows, judged, share=0.5) if row.source is not None]
    found = [losses(run, number) for number in (1, 2, 3, 4)]
    mean = {i: np.mean([half[i] for half in found if i in half]) for i in found[0] | found[1]}
    assert used == sorted(mean, key=lambda i: mean[i])[: round(len(mean) / 2)]
    manifest = verify(task.round(0), kind="policy")
    assert manifest.counts == {
        "pairs": len(used),
        "too_long": 0,
        "too_difficult": len(rows) - len(used),
    }
    for folder in judged:
        assert manifest.inputs[folder.name] == digest(read_manifest(folder).files)


def test_runs_that_are_done_are_not_repeated(built: tuple[Run, RunConfig]) -> None:
    """Another share trains the policy anew and judges nothing anew; fewer seeds leave fewer runs."""
    run, _ = built
    folder = run.folder
    before = [read_manifest(run.policy_run("easy", number)) for number in (1, 2, 3, 4)]
    first = read_manifest(run.policy_round("easy", 0))
    policies = {"plain": sft(), "easy": preference(loss="selective_dpo", start="plain", seeds=2, share=0.25)}
    build("policy", run, policy_world.make_config(folder, policies=policies))
    assert [read_manifest(run.policy_run("easy", number)) for number in (1, 2, 3, 4)] == before
    second = read_manifest(run.policy_round("easy", 0))
    assert second.counts["pairs"] == round(first.counts["pairs"] / 2)
    policies = {"plain": sft(), "easy": preference(loss="selective_dpo", start="plain", seeds=1, share=0.25)}
    build("policy", run, policy_world.make_config(folder, policies=policies))
    assert read_manifest(run.policy_run("easy", 2)) == before[1]
    assert not run.policy_run("easy", 3).exists()


def test_one_prompt_has_no_halves(built: tuple[Run, RunConfig]) -> None:
    run, config = built
    assert config.policy is not None
    task = PolicyTask(run, config.policy, "easy", NoSampler(), config.policies)
    with pytest.raises(ValueError, match="there is 1 prompt; at least 2 are needed"):
        first_half(pair_rows(task, task.start("plain"))[:1], seed=0)


def test_at_least_one_pair_is_left(built: tuple[Run, RunConfig], tmp_path: Path) -> None:
    run, config = built
    assert config.policy is not None
    task = PolicyTask(run, config.policy, "easy", NoSampler(), config.policies)
    rows = pair_rows(task, task.start("plain"))[:3]
    ids = [row.source.id for row in rows if row.source is not None]
    write_records(
        tmp_path / "losses.jsonl",
        [PairLoss(pair_id=i, loss=x) for i, x in zip(ids, (0.7, 0.1, 0.4), strict=True)],
    )
    assert easiest_first(rows, [tmp_path], share=0.01) == [rows[1]]
    assert easiest_first(rows, [tmp_path], share=1.0) == [rows[1], rows[2], rows[0]]


def test_its_settings_are_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="seeds is 3: loss 'selective_dpo' needs it, 'dpo' is given"):
        policy_world.make_config(tmp_path, policies={"a": preference(seeds=3)})
    with pytest.raises(ValidationError, match="share"):
        policy_world.make_config(tmp_path, policies={"a": preference(loss="selective_dpo", share=0.0)})
