"""Scoring with a run's rewards: columns in the run's order, fold models where asked, broken rewards named."""

from pathlib import Path

import numpy as np
import pytest
from preforch_training.reward.scoring import RunRewards, check_rewards, pair_margins
from preforch_training.run import Run
from reward_world import pair_heads
from small_world import FUNNY, NAMES, SAFE, build, make_prompt, make_run


@pytest.fixture(scope="module")
def mixed(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One trained and one given reward."""
    run, config = make_run(
        tmp_path_factory.mktemp("mixed"), reward={"funny": pair_heads(encoder, epochs=2)["funny"]}
    )
    build("data", run, config)
    build("reward", run, config)
    return run


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_reward_that_is_not_finite_is_named(value: float) -> None:
    prompts = [make_prompt(text) for text in "abc"]
    with pytest.raises(ValueError, match=f"demo reward of response 1 is {value}.*prompt 'b', response 'yes'"):
        check_rewards(np.array([0.0, value, value]), prompts, ["no", "yes", "no"], source="demo")


def test_a_run_scores_by_the_model_of_each_response_s_fold(mixed: Run) -> None:
    rewards = RunRewards(mixed)
    prompts, responses = (
        [make_prompt("joke"), make_prompt("danger"), make_prompt("joke")],
        [FUNNY, SAFE, FUNNY],
    )
    found_NK = rewards.raw(prompts, responses, folds=[1, None, 0])
    by_model = {fold: rewards.raw(prompts, responses, folds=[fold] * 3) for fold in (0, 1, None)}
    expected_N = [by_model[1][0, 0], by_model[None][1, 0], by_model[0][2, 0]]
    np.testing.assert_allclose(found_NK[:, 0], expected_N, atol=1e-6)
    assert len({round(values[0, 0], 4) for values in by_model.values()}) == 3
    # A given reward has no folds, whatever is asked.
    np.testing.assert_array_equal(found_NK[:, 1], [0, 1, 0])
    np.testing.assert_allclose(rewards.raw(prompts, responses), by_model[None], atol=1e-6)


def test_a_run_has_the_folds_of_its_trained_rewards(mixed: Run, toy_run: tuple[Run, object]) -> None:
    assert RunRewards(mixed).folds == 2
    assert RunRewards(toy_run[0]).folds == 0
    assert tuple(RunRewards(mixed).infos) == NAMES


def test_margins_are_the_difference_of_both_sides_and_none_of_no_pairs(mixed: Run) -> None:
    prompts = {prompt.id: prompt for prompt in mixed.prompts()}
    pairs = mixed.pairs("safe", "validation")
    rewards = RunRewards(mixed)
    assert len(pairs) > 5
    np.testing.assert_array_equal(rewards.margins("safe", prompts, pairs), np.ones(len(pairs)))
    info = rewards.infos["safe"]
    none_N = pair_margins(info.reward, mixed.reward("safe"), mixed.encoder_cache, prompts, [])
    assert none_N.shape == (0,)
