"""The responses that are known already: distinct, calibrated, filtered, and mixed in by their share."""

import numpy as np
import pytest
from known_world import IDENTITY, NAMES, known, scored
from preforch_models.calibration import Calibration, Constants
from preforch_training.policy.known_responses import (
    any_above,
    good_responses,
    known_responses,
    originals,
)


def test_known_responses_are_distinct_training_responses_with_their_softmax_weights() -> None:
    assert known().responses == ("chosen", "good", "bad", "plain")
    assert known().chosen_N.tolist() == [True, False, False, False]
    np.testing.assert_allclose(known().weights_NK[0], [1 / (1 + np.e), np.e / (1 + np.e)])
    np.testing.assert_allclose(known().weights_NK[2], [0.5, 0.5])


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


def test_originals_make_up_their_share() -> None:
    good_N = np.array([False] + [True] * 50)
    picked = originals(good_N, fresh=30, share=0.25, seed=0)
    assert len(picked) == len(set(picked)) == 10
    assert 0 not in picked
    assert originals(good_N, fresh=30, share=0.0, seed=0) == []


def test_without_training_scores_there_is_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="no scored responses"):
        known_responses([], IDENTITY, NAMES, tau=1.0)
