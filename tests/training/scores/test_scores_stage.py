"""Stage `scores`: both sides of every overall pair, out of fold where rewards were trained, calibrated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from preforch_models.manifest import verify
from preforch_training.config import RunConfig
from preforch_training.data.splits import fold_of
from preforch_training.pipeline import open_run
from preforch_training.records import by_id
from preforch_training.reward.kinds import pair_head
from preforch_training.reward.scoring import RunRewards, score
from preforch_training.run import Run
from preforch_training.scores import stage as scores_stage
from preforch_training.scores.calibration import CalibratedRewards
from preforch_training.scores.stage import held_out_margins, score_pairs
from preforch_training.scores.table import each_score, read_calibration, read_scores
from small_world import NAMES, build, make_config, make_prompt, make_run, pair_rows, write_rows


def scored_run(folder: Path, **sections: object) -> tuple[Run, RunConfig]:
    run, config = make_run(folder, **sections)
    build_all(run, config)
    return run, config


def build_all(run: Run, config: RunConfig) -> None:
    for stage in ("data", "reward", "scores"):
        build(stage, run, config)


@pytest.fixture(scope="module")
def mixed(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig]:
    """One trained and one given reward."""
    head = {"kind": "pair_head", "encoder": str(encoder), "hidden": 8, "epochs": 2, "batch_size": 32}
    given = {"kind": "function", "function": "small_world:safe"}
    return scored_run(tmp_path_factory.mktemp("mixed"), reward={"funny": head, "safe": given})


def test_every_side_of_every_overall_pair_is_scored_once(mixed: tuple[Run, RunConfig]) -> None:
    run, _ = mixed
    scored = read_scores(run.scores)
    pairs = run.pairs("overall")
    sides = [(pair, side) for pair in pairs for side in ("chosen", "rejected")]
    expected = [(p.prompt_id, p.id, side, getattr(p, side), p.split) for p, side in sides]
    assert [(s.prompt_id, s.pair_id, s.side, s.response, s.split) for s in scored] == expected
    manifest = verify(run.scores, kind="scores")
    assert manifest.counts["responses"] == len(scored)
    assert manifest.inputs.keys() == {"data", "reward/funny", "reward/safe"}


def test_the_table_is_the_same_whatever_is_in_memory_at_once(
    mixed: tuple[Run, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = mixed
    assert len(run.pairs("overall")) > 40
    monkeypatch.setattr(scores_stage, "PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(pair_head, "SCORED_AT_ONCE", 3)
    found = list(score_pairs(run, RunRewards(run), run.stored_prompts()))
    whole = read_scores(run.scores)
    assert [s.model_dump(exclude={"rewards"}) for s in found] == [
        s.model_dump(exclude={"rewards"}) for s in whole
    ]
    for name in NAMES:
        np.testing.assert_allclose(
            [s.rewards[name] for s in found], [s.rewards[name] for s in whole], atol=1e-5
        )
    assert list(each_score(run.scores, split="validation")) == [s for s in whole if s.split == "validation"]


def test_training_prompts_are_scored_by_the_models_of_their_fold_and_others_by_the_full_one(
    mixed: tuple[Run, RunConfig],
) -> None:
    run, config = mixed
    prompts = by_id(run.prompts())
    scored = read_scores(run.scores)
    assert all(
        s.fold == (fold_of(prompts[s.prompt_id].messages, 2) if s.split == "train" else None) for s in scored
    )
    for fold in (0, 1, None):
        rows = [s for s in scored if s.fold == fold]
        asked, responses = [prompts[s.prompt_id] for s in rows], [s.response for s in rows]
        found = [s.rewards["funny"] for s in rows]
        own, other = (
            score(
                config.reward.objectives["funny"],
                run.reward("funny"),
                run.encoder_cache,
                asked,
                responses,
                fold=number,
            )
            for number in (fold, 0 if fold == 1 else 1)
        )
        np.testing.assert_allclose(found, own, atol=1e-6)
        assert np.abs(found - other).max() > 1e-3


def test_a_given_reward_has_no_folds(mixed: tuple[Run, RunConfig]) -> None:
    run, _ = mixed
    assert all(s.rewards["safe"] == s.response.count("careful") for s in read_scores(run.scores))


def test_without_trained_rewards_no_score_has_a_fold(tmp_path: Path) -> None:
    run, _ = scored_run(tmp_path)
    assert {s.fold for s in read_scores(run.scores)} == {None}


def test_calibration_is_fitted_on_training_responses_only_each_counted_once(tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", [*pair_rows(), *pair_rows()[:90]])
    config = make_config(tmp_path, reward={"funny": {"kind": "function", "function": "small_world:length"}})
    run = open_run(config)
    build_all(run, config)
    scored = read_scores(run.scores)
    train = {
        (s.prompt_id, s.response): [s.rewards[name] for name in NAMES] for s in scored if s.split == "train"
    }
    assert len(train) < sum(s.split == "train" for s in scored)
    calibrated = read_calibration(run.scores).apply_matrix(np.array(list(train.values())))
    np.testing.assert_allclose(calibrated.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(calibrated.std(axis=0), 1, atol=1e-9)
    assert verify(run.scores).counts["train_responses"] == len(train)


def mostly_funny(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A reward function that is wrong about every fifth prompt."""
    right = [not prompt.endswith("three") for prompt in prompts]
    return [
        (2 * r.count("haha") - 1) * (3.0 if good else -3.0) for r, good in zip(responses, right, strict=True)
    ]


def mostly_wrong(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """The other way round."""
    return [-reward for reward in mostly_funny(prompts, responses)]


def log_odds_run(folder: Path, function: str) -> tuple[Run, RunConfig]:
    given = {"kind": "function", "function": f"test_scores_stage:{function}"}
    careful = {"kind": "function", "function": "test_scores_stage:mostly_wrong"}
    return make_run(folder, reward={"funny": given, "safe": careful}, scores={"calibration": "log_odds"})


def test_log_odds_takes_its_scale_from_the_validation_pairs_of_the_objective(tmp_path: Path) -> None:
    run, config = log_odds_run(tmp_path, "mostly_funny")
    build_all(run, config)
    prompts = by_id(run.prompts())
    funny = run.pairs("funny", "validation")
    share = np.mean([not prompts[pair.prompt_id].text.endswith("three") for pair in funny])
    assert 0.5 < share < 1
    # All margins are 6 or -6, so that the most likely chance of winning at 6 is the share of pairs won.
    constants = read_calibration(run.scores).constants["funny"]
    assert 1 / (1 + np.exp(-6 * constants.scale)) == pytest.approx(share)
    assert verify(run.scores).counts["calibration_pairs/funny"] == len(funny)


def test_log_odds_names_a_reward_that_is_worse_than_chance(tmp_path: Path) -> None:
    run, config = log_odds_run(tmp_path, "mostly_wrong")
    build("data", run, config)
    build("reward", run, config)
    with pytest.raises(
        ValueError, match=r"reward of 'funny' is no better than chance on its .* held-out pairs"
    ):
        build("scores", run, config)
    assert not run.scores.exists()


def test_margins_are_of_the_full_model(mixed: tuple[Run, RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = mixed
    prompts = by_id(run.prompts())
    pairs = run.pairs("funny", "validation")
    asked = [prompts[pair.prompt_id] for pair in pairs]
    chosen, rejected = (
        score(config.reward.objectives["funny"], run.reward("funny"), run.encoder_cache, asked, responses)
        for responses in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    )
    found = held_out_margins(run, RunRewards(run), run.stored_prompts())
    np.testing.assert_allclose(found["funny"], chosen - rejected, atol=1e-5)
    assert len(pairs) > 5
    monkeypatch.setattr(scores_stage, "PAIRS_AT_ONCE", 2)
    in_parts = held_out_margins(run, RunRewards(run), run.stored_prompts())
    np.testing.assert_allclose(in_parts["funny"], found["funny"], atol=1e-5)


def test_calibrated_rewards_have_columns_in_the_order_of_the_objectives(mixed: tuple[Run, RunConfig]) -> None:
    run, _ = mixed
    prompts = [make_prompt("joke", split="test"), make_prompt("danger", split="test")]
    responses = ["haha", "careful"]
    raw = RunRewards(run).raw(prompts, responses)
    assert raw.shape == (2, 2)
    np.testing.assert_array_equal(raw[:, 1], [0, 1])
    np.testing.assert_allclose(
        CalibratedRewards(run)(prompts, responses), read_calibration(run.scores).apply_matrix(raw)
    )


def test_a_response_to_a_training_prompt_is_scored_as_the_score_table_was_by_its_own_fold(
    mixed: tuple[Run, RunConfig],
) -> None:
    run, _ = mixed
    prompts, calibration, rewards = by_id(run.prompts()), read_calibration(run.scores), CalibratedRewards(run)
    scored = read_scores(run.scores)
    asked, responses = [prompts[s.prompt_id] for s in scored], [s.response for s in scored]
    table_NK = np.array([list(calibration.apply(s.rewards).values()) for s in scored])
    np.testing.assert_allclose(rewards(asked, responses), table_NK, atol=1e-5)
    full_NK = rewards.by_full_models(asked, responses)
    assert full_NK is not None
    is_train_N = np.array([s.split == "train" for s in scored])
    np.testing.assert_allclose(full_NK[~is_train_N], table_NK[~is_train_N], atol=1e-5)
    assert np.abs(full_NK - table_NK)[is_train_N, 0].max() > 1e-2
    np.testing.assert_allclose(full_NK[:, 1], table_NK[:, 1], atol=1e-6)


def test_rewards_without_folds_have_no_other_full_models(toy_run: tuple[Run, RunConfig]) -> None:
    assert CalibratedRewards(toy_run[0]).by_full_models([make_prompt("joke")], ["haha"]) is None


def test_a_reward_that_is_not_finite_stops_the_stage_and_leaves_nothing(tmp_path: Path) -> None:
    run, config = make_run(
        tmp_path, reward={"funny": {"kind": "function", "function": "small_world:not_a_number"}}
    )
    build("data", run, config)
    with pytest.raises(ValueError, match=r"function reward of response .* is nan, it must be finite"):
        build("reward", run, config)
    assert sorted(path.name for path in run.folder.iterdir()) == ["data", "reward"]
    assert list(run.reward("funny").parent.iterdir()) == []


def test_scores_are_made_again_when_a_reward_changes(tmp_path: Path) -> None:
    run, _ = scored_run(tmp_path)
    before = verify(run.scores)
    other = make_config(tmp_path, reward={"funny": {"kind": "function", "function": "small_world:safe"}})
    build_all(run, other)
    assert verify(run.scores).inputs["reward/funny"] != before.inputs["reward/funny"]
    assert all(s.rewards["funny"] == s.rewards["safe"] for s in read_scores(run.scores))
