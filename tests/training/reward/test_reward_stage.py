"""Stage `reward`: fold models never see their fold, and what a reward is lies beside it."""

import json
import random
import re
from pathlib import Path

import pytest
from preforch_models.manifest import ArtifactError, verify
from preforch_training.config import RunConfig
from preforch_training.data.splits import fold_of
from preforch_training.pipeline import open_run
from preforch_training.reward.scoring import RunRewards, fold_folder, read_reward
from preforch_training.run import Run
from reward_world import differ, pair_heads
from small_world import NAMES, PLACES, build, make_config, make_run, pair_rows, questions, write_rows

FOLDS = 2


def swap(row: dict[str, str]) -> dict[str, str]:
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


@pytest.fixture(scope="module")
def heads(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig]:
    """A run with trained pair heads."""
    run, config = make_run(tmp_path_factory.mktemp("heads"), reward=pair_heads(encoder))
    build("data", run, config)
    build("reward", run, config)
    return run, config


def test_a_fold_model_never_saw_its_fold(heads: tuple[Run, RunConfig], encoder: Path, tmp_path: Path) -> None:
    """With the pairs of fold 0 turned round, its model is the same to the last bit; the others are not."""
    run, _ = heads
    folds = {prompt.id: fold_of(prompt.messages, FOLDS) for prompt in run.prompts()}
    assert set(folds.values()) == {0, 1}
    other, config = make_run(tmp_path, reward=pair_heads(encoder))
    build("data", other, config)
    pairs = other.pairs()
    texts = {pair.id: folds[pair.prompt_id] for pair in pairs if pair.split == "train"}
    rows = [
        swap(row) if texts.get(pair.id) == 0 else row for row, pair in zip(pair_rows(), pairs, strict=True)
    ]
    write_rows(tmp_path / "pairs.jsonl", rows)
    build("data", other, config)
    build("reward", other, config)
    assert differ(fold_folder(run.reward("funny"), 0), fold_folder(other.reward("funny"), 0)) == 0
    assert differ(fold_folder(run.reward("funny"), 1), fold_folder(other.reward("funny"), 1)) > 1e-3
    assert differ(run.reward("funny"), other.reward("funny")) > 1e-3


def test_a_reward_that_is_given_is_written_down_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = make_run(tmp_path)
    build("data", run, config)
    build("reward", run, config)
    written = json.loads((run.reward("funny") / "reward.json").read_text(encoding="utf-8"))
    assert written == {
        "reward": {"kind": "function", "function": "small_world:funny"},
        "folds": 0,
        "in_sample": False,
    }
    manifest = verify(run.reward("funny"), kind="reward")
    assert list(manifest.files) == ["reward.json"]
    count = len(run.pairs("funny", "validation"))
    assert manifest.counts == {"validation_pairs": count}
    assert manifest.metrics["validation"]["value"] == 1.0
    assert f"reward/funny: orders 1.000 [1.000, 1.000] of {count} validation pairs" in capsys.readouterr().err


def test_a_reward_speaks_up_with_an_interval_and_says_when_it_is_a_coin(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(0)
    rows = [swap(row) if rng.random() < 0.5 else row for row in pair_rows()]
    write_rows(tmp_path / "pairs.jsonl", rows)
    config = make_config(tmp_path, reward={"funny": pair_heads(encoder)["funny"]})
    run = open_run(config)
    build("data", run, config)
    build("reward", run, config)
    said = capsys.readouterr().err
    assert re.search(
        r"reward/funny: orders 0\.\d+ \[0\.\d+, 0\.\d+\] of \d+ validation pairs, 0\.\d+ of its training",
        said,
    )
    found = verify(run.reward("funny")).metrics
    assert found["validation"]["low"] < found["validation"]["value"] < found["validation"]["high"]
    assert found["validation"]["value"] == found["validation_pair_accuracy"]["full"] <= 0.6
    coin = "reward/funny: warning: hardly better than a coin"
    assert (coin in said) is (found["validation"]["value"] <= 0.55)
    write_rows(tmp_path / "pairs.jsonl", [swap(row) for row in pair_rows()])
    given = make_config(tmp_path)
    build("data", run, given)
    build("reward", run, given)
    assert coin in capsys.readouterr().err, "of swapped pairs the true reward orders none"


def test_a_reward_that_knows_its_pairs_by_heart_says_so(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every response is a word of its own, and a coin says which is better."""
    rng = random.Random(1)
    rows = [row for row in pair_rows() if row["objective"] == "overall"]
    rows += [
        {"prompt": prompt, "chosen": one, "rejected": other, "objective": "funny"}
        for prompt in questions()
        for one, other in [rng.sample([" ".join(rng.choices(PLACES, k=4)) for _ in range(2)], 2)]
    ]
    write_rows(tmp_path / "pairs.jsonl", rows)
    head = pair_heads(encoder)["funny"] | {"hidden": 256, "epochs": 60, "dropout": 0.0}
    config = make_config(tmp_path, reward={"funny": head})
    run = open_run(config)
    build("data", run, config)
    build("reward", run, config)
    assert "reward/funny: warning: it knows its training pairs by heart" in capsys.readouterr().err


def test_too_few_pairs_are_named_with_the_numbers(encoder: Path, tmp_path: Path) -> None:
    rows = [row for row in pair_rows() if row["objective"] != "funny"]
    config = make_config(tmp_path, reward={"funny": pair_heads(encoder)["funny"], "folds": 5})
    write_rows(tmp_path / "pairs.jsonl", pair_rows())
    run = open_run(config)
    build("data", run, config)
    by_split = {prompt.text: prompt.split for prompt in run.prompts()}
    few = [text for text in questions() if by_split[text] == "train"][:2]
    few += [text for text in questions() if by_split[text] == "validation"][:2]
    rows += [row for row in pair_rows() if row["objective"] == "funny" and row["prompt"] in few]
    write_rows(tmp_path / "pairs.jsonl", rows)
    build("data", run, config)
    with pytest.raises(
        ValueError,
        match=r"objective 'funny' has 2 training pairs of 2 prompts, and without fold \d of 5 of [01]; .*"
        r"at least 2 prompts: more pairs are needed, or \[reward\] folds = 'off'",
    ):
        build("reward", run, config)


def test_a_trained_reward_says_what_it_is_and_how_many_folds_it_has(heads: tuple[Run, RunConfig]) -> None:
    run, config = heads
    info = read_reward(run.reward("funny"))
    assert info.reward == config.reward.objectives["funny"]
    assert info.folds == FOLDS
    assert sorted(path.name for path in (run.reward("funny") / "folds").iterdir()) == ["0", "1"]
    assert verify(run.reward("funny")).inputs.keys() == {"data"}


def test_without_folds_there_is_one_model_and_it_says_that_its_scores_are_in_sample(
    encoder: Path, tmp_path: Path
) -> None:
    trained = {"funny": pair_heads(encoder, epochs=1)["funny"], "folds": "off"}
    run, config = make_run(tmp_path, reward=trained)
    build("data", run, config)
    build("reward", run, config)
    info = read_reward(run.reward("funny"))
    assert (info.folds, info.in_sample) == (0, True)
    assert not (run.reward("funny") / "folds").exists()
    assert list(verify(run.reward("funny")).metrics["validation_pair_accuracy"]) == ["full"]
    assert RunRewards(run).in_sample == ["funny"], "a given reward has nothing to overfit"


def test_a_reward_that_is_trained_without_pairs_is_named(encoder: Path, tmp_path: Path) -> None:
    """The data are older than the config: they were made for a reward that needs none."""
    run, given = make_run(tmp_path)
    write_rows(tmp_path / "pairs.jsonl", [row for row in pair_rows() if row["objective"] == "overall"])
    build("data", run, given)
    config = make_config(tmp_path, reward={"funny": pair_heads(encoder)["funny"]})
    with pytest.raises(ValueError, match="objective 'funny' has 0 training and 0 validation pairs"):
        build("reward", run, config)


def test_another_number_of_folds_trains_rewards_again_and_leaves_given_ones(
    encoder: Path, tmp_path: Path
) -> None:
    def built(folds: int) -> dict[str, int]:
        trained = {"funny": pair_heads(encoder, epochs=1)["funny"], "folds": folds}
        run, config = make_run(tmp_path, reward=trained)
        build("data", run, config)
        build("reward", run, config)
        return {name: (run.reward(name) / "manifest.json").stat().st_mtime_ns for name in NAMES}

    two, three, again = built(2), built(3), built(3)
    assert three["funny"] != two["funny"]
    assert three["safe"] == two["safe"]
    assert again == three


def test_a_reward_that_is_not_finished_is_named(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path)
    with pytest.raises(ArtifactError, match=r"funny: no manifest\.json"):
        read_reward(run.reward("funny"))
