"""Calibration: rewards of different models on one scale, and what no scale can be found for."""

import numpy as np
import pytest
from preforch_models.calibration import Calibration, fit_calibration

NAMES = ("helpful", "harmless")
REWARDS = np.array([[1.0, -300.0], [2.0, 100.0], [4.5, 50.0], [0.0, 0.0]])


def test_z_scores_have_mean_zero_and_deviation_one_per_objective() -> None:
    calibrated = fit_calibration(REWARDS, NAMES, method="zscore").apply_matrix(REWARDS)
    np.testing.assert_allclose(calibrated.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(calibrated.std(axis=0), 1, atol=1e-12)


def test_z_scores_forget_the_scale_and_offset_of_a_reward_model() -> None:
    changed = REWARDS * [7.0, 0.01] + [100.0, -3.0]
    expected = fit_calibration(REWARDS, NAMES, method="zscore").apply_matrix(REWARDS)
    found = fit_calibration(changed, NAMES, method="zscore").apply_matrix(changed)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_no_calibration_changes_nothing() -> None:
    np.testing.assert_array_equal(fit_calibration(REWARDS, NAMES, method="none").apply_matrix(REWARDS), REWARDS)


def test_one_response_and_a_matrix_are_calibrated_alike_and_by_name() -> None:
    calibration = fit_calibration(REWARDS, NAMES, method="zscore")
    row = calibration.apply({"harmless": 100.0, "helpful": 2.0})
    np.testing.assert_allclose([row[name] for name in NAMES], calibration.apply_matrix(REWARDS)[1])


@pytest.mark.parametrize("method", ["none", "zscore"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reward_that_is_not_finite_is_named_with_its_row(method: str, value: float) -> None:
    rewards = REWARDS.copy()
    rewards[2, 1] = value
    with pytest.raises(ValueError, match=f"reward of 'harmless' in row 2 is {value}"):
        fit_calibration(rewards, NAMES, method=method)  # type: ignore[arg-type]


def test_a_reward_that_never_varies_is_refused() -> None:
    with pytest.raises(ValueError, match="reward of 'helpful' is the same for all 4 responses"):
        fit_calibration(REWARDS * [0.0, 1.0], NAMES, method="zscore")


def test_constants_survive_a_round_trip_through_json() -> None:
    calibration = fit_calibration(REWARDS, NAMES, method="zscore")
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
