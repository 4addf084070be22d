"""The pairs of the score table: others counted once, rewards calibrated, broken pairs named."""

import numpy as np
import pytest
from preforch_models.calibration import Calibration, Constants
from preforch_training.scores.pairs import pair_rewards
from scores_world import PLAIN, entry
from small_world import NAMES


def test_others_are_the_known_responses_of_the_prompt_but_the_chosen_one_each_counted_once() -> None:
    table = [
        entry("1", "chosen", "a", 4.0),
        entry("1", "rejected", "b", 1.0),
        entry("2", "chosen", "a", 4.0),
        entry("2", "rejected", "c", 3.0),
        entry("3", "rejected", "b", 1.0),
        entry("3", "chosen", "a", 4.0),
        entry("4", "chosen", "x", 0.0, prompt="q"),
        entry("4", "rejected", "a", 9.0, prompt="q"),
    ]
    found = pair_rewards(table, PLAIN, NAMES)
    assert found.prompt_id_N.tolist() == ["p", "p", "p", "q"]
    np.testing.assert_array_equal(found.chosen_NK[:, 0], [4, 4, 4, 0])
    np.testing.assert_array_equal(found.rejected_NK[:, 0], [1, 3, 1, 9])
    np.testing.assert_array_equal(found.others_NK[:, 0], [2, 2, 2, 9])
    np.testing.assert_array_equal(found.others_NK[:, 1], [-2, -2, -2, -9])


def test_rewards_of_pairs_are_calibrated() -> None:
    calibration = Calibration(
        method="zscore", constants={name: Constants(offset=1.0, scale=2.0) for name in NAMES}
    )
    found = pair_rewards(
        [entry("1", "chosen", "a", 4.0), entry("1", "rejected", "b", 1.0)], calibration, NAMES
    )
    np.testing.assert_array_equal(found.chosen_NK, [[6, -10]])


def test_a_pair_with_one_side_or_two_equal_ones_is_named() -> None:
    with pytest.raises(ValueError, match=r"pair '1' has only the side 'chosen'"):
        pair_rewards([entry("1", "chosen", "a", 1.0)], PLAIN, NAMES)
    with pytest.raises(ValueError, match="pair '1' prefers a response to itself"):
        pair_rewards([entry("1", "chosen", "a", 1.0), entry("1", "rejected", "a", 1.0)], PLAIN, NAMES)
