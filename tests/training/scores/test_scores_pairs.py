"""The pairs of the score table: others counted once, rewards calibrated, broken pairs named."""

import numpy as np
import pytest
from preforch_models.calibration import Calibration, Constants
from preforch_training.records import keys_of
from preforch_training.scores import pairs
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
    assert found.prompt_key_N.tolist() == keys_of(["p", "p", "p", "q"]).tolist()
    np.testing.assert_array_equal(found.chosen_NK[:, 0], [4, 4, 4, 0])
    np.testing.assert_array_equal(found.rejected_NK[:, 0], [1, 3, 1, 9])
    np.testing.assert_array_equal(found.others_NK[:, 0], [2, 2, 2, 9])
    np.testing.assert_array_equal(found.others_NK[:, 1], [-2, -2, -2, -9])


def test_others_do_not_depend_on_how_python_salts_its_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=60)
    table = [
        entry(str(i // 2), ("chosen", "rejected")[i % 2], f"response {i}", value, prompt=f"p{i // 20}")
        for i, value in enumerate(values)
    ]
    found = pair_rewards(table, PLAIN, NAMES).others_NK
    for salt in range(5):
        monkeypatch.setattr(pairs, "hash", lambda key, salt=salt: hash((salt, key)), raising=False)
        np.testing.assert_array_equal(pair_rewards(table, PLAIN, NAMES).others_NK, found)


def test_the_other_of_two_is_the_rejected_one_whatever_its_size() -> None:
    table = [entry("1", "chosen", "a", 1e99), entry("1", "rejected", "b", 0.1)]
    np.testing.assert_array_equal(pair_rewards(table, PLAIN, NAMES).others_NK, [[0.1, -0.1]])


def test_the_sides_of_a_pair_are_beside_each_other() -> None:
    table = [entry(i, side, side, 1.0) for side in ("chosen", "rejected") for i in ("1", "2")]
    with pytest.raises(ValueError, match=r"pair '1' .* or the other is not beside it"):
        pair_rewards(table, PLAIN, NAMES)


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
