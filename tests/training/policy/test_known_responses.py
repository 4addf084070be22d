"""The responses that are known already: distinct, calibrated, filtered, and mixed in by their share."""

import numpy as np
import pytest
from known_world import IDENTITY, NAMES, known, scored
from preforch_models.calibration import Calibration, Constants
from preforch_models.context import ContextFormat
from preforch_training.policy.known_responses import (
    any_above,
    good_responses,
    known_responses,
    on_grid,
    originals,
)


def test_known_responses_are_distinct_training_responses_with_their_softmax_weights() -> None:
    assert known().responses == ("chosen", "good", "bad", "plain")
    assert known().chosen_N.tolist() == [True, False, False, False]
    np.testing.assert_allclose(known().weights_NK[0], [1 / (1 + np.e), np.e / (1 + np.e)])
    np.testing.assert_allclose(known().weights_NK[2], [0.5, 0.5])
    sharp = known_responses([scored("y", (0, 1))], IDENTITY, NAMES, tau=0.5)
    np.testing.assert_allclose(sharp.weights_NK, [[1 / (1 + np.e**2), np.e**2 / (1 + np.e**2)]])


def test_the_same_response_to_two_prompts_is_two_and_chosen_where_it_was() -> None:
    scores = [scored("y", (0, 1)), scored("y", (2, 0), prompt="q"), scored("y", (0, 1), side="chosen")]
    found = known_responses(scores, IDENTITY, NAMES, tau=1.0)
    assert (found.prompt_ids, found.responses) == (("p", "q"), ("y", "y"))
    assert found.chosen_N.tolist() == [True, False]
    np.testing.assert_array_equal(found.rewards_NK, [[0, 1], [2, 0]])


def test_rewards_are_calibrated_by_name_whatever_the_order_of_the_constants() -> None:
    calibration = Calibration(
        method="none", constants={"b": Constants(offset=1.0), "a": Constants(scale=2.0)}
    )
    rewards = known_responses([scored("y", (3, 5))], calibration, NAMES, tau=1.0).rewards_NK
    np.testing.assert_allclose(rewards, [[6.0, 4.0]])


def test_chosen_responses_and_those_of_quality_are_good() -> None:
    good_N = good_responses(known(), keep="best_by_weights", quantile=0.7)
    assert good_N.tolist() == [True, True, False, False]


def test_the_filter_of_ric_needs_one_reward_above_its_quantile() -> None:
    rewards_NK = np.array([[2.5, -9.0], [-9.0, 2.5], [0.0, 0.0]])
    assert any_above(rewards_NK, known(), quantile=0.7).tolist() == [True, True, False]


def test_the_quantile_is_of_each_objective_alone_never_pooled() -> None:
    scores = [scored(str(i), (i / 10, 100 + i)) for i in range(11)]
    rewards_NK = np.array([[2.0, 0.0], [0.0, 105.0], [0.71, 0.0], [0.0, 108.0]])
    apart = known_responses(scores, IDENTITY, NAMES, tau=1.0)
    assert any_above(rewards_NK, apart, quantile=0.7).tolist() == [True, False, True, True]


def test_what_lies_at_a_quantile_is_not_above_it() -> None:
    at_the_top = np.array([[2.0, 2.0]])
    assert any_above(at_the_top, known(), quantile=1.0).tolist() == [False]


def test_known_responses_are_filtered_by_the_rule_that_is_asked_for() -> None:
    # The chosen one is weak, two rejected ones are above the quantile of one objective each.
    scores = [
        scored("chosen", (-9, -9), side="chosen"),
        *(scored(name, rewards) for name, rewards in {"a": (9, -8), "b": (-8, 9), "c": (0, 0)}.items()),
    ]
    every = known_responses(scores, IDENTITY, NAMES, tau=1.0)
    by_rewards = good_responses(every, keep="any_above_quantile", quantile=0.7)
    assert by_rewards.tolist() == [False, True, True, False]
    # Utilities: -9, 9, 9, 0.
    by_weights = good_responses(every, keep="best_by_weights", quantile=0.5)
    assert by_weights.tolist() == [True, True, True, False]
    at_the_top = good_responses(every, keep="best_by_weights", quantile=1.0)
    assert at_the_top.tolist() == [True, False, False, False]


def test_originals_make_up_their_share() -> None:
    good_N = np.array([False] + [True] * 50)
    picked = originals(good_N, fresh=30, share=0.25, seed=0)
    assert len(picked) == len(set(picked)) == 10
    assert 0 not in picked
    assert originals(good_N, fresh=30, share=0.0, seed=0) == []
    assert picked == originals(good_N, fresh=30, share=0.25, seed=0)
    assert picked != originals(good_N, fresh=30, share=0.25, seed=1)
    assert picked != sorted(picked)


def test_where_no_sample_was_kept_or_few_are_known_all_good_ones_are_taken() -> None:
    good_N = np.array([True, False, True])
    assert sorted(originals(good_N, fresh=0, share=0.5, seed=0)) == [0, 2]
    assert sorted(originals(good_N, fresh=100, share=0.5, seed=0)) == [0, 2]
    assert len(originals(good_N, fresh=1, share=0.5, seed=0)) == 1


def test_without_training_scores_there_is_nothing_to_learn() -> None:
    for scores in ([], [scored("y", (1, 1)).model_copy(update={"split": "validation"})]):
        with pytest.raises(ValueError, match="no scored responses"):
            known_responses(scores, IDENTITY, NAMES, tau=1.0)


def test_weights_get_the_names_of_the_context_in_its_order_on_its_grid() -> None:
    unordered = ContextFormat(objectives=("b", "a"), encoding="levels")
    assert list(on_grid(np.array([0.68, 0.32]), unordered).items()) == [("b", 0.7), ("a", 0.3)]
