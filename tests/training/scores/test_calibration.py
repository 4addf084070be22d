"""Calibration: rewards of different models on one scale, and what no scale can be found for."""

import numpy as np
import pytest
from preforch_models.calibration import Calibration
from preforch_training.scores.calibration import fit_calibration, log_odds_scale

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
    np.testing.assert_array_equal(
        fit_calibration(REWARDS, NAMES, method="none").apply_matrix(REWARDS), REWARDS
    )


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
    # The deviation of three times 0.1 is 1e-17.
    noisy = np.column_stack([REWARDS[:3, 0], np.full(3, 0.1)])
    assert noisy[:, 1].std() > 0
    with pytest.raises(ValueError, match="reward of 'harmless' is the same for all 3 responses"):
        fit_calibration(noisy, NAMES, method="zscore")


def test_rewards_of_no_response_are_refused() -> None:
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="the same for all 0 responses"):
        fit_calibration(np.empty((0, 2)), NAMES, method="zscore")


def test_constants_survive_a_round_trip_through_json() -> None:
    calibration = fit_calibration(REWARDS, NAMES, method="zscore")
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


# Log-odds.


def held_out(rows: int, *, scale: float, seed: int = 0) -> np.ndarray:
    """Margins of pairs won with the log-odds scale * difference of rewards."""
    rng = np.random.default_rng(seed)
    difference = rng.normal(size=rows) * 3
    won = scale * difference + rng.logistic(size=rows) > 0
    return np.where(won, difference, -difference)


def test_log_odds_finds_the_scale_that_pairs_were_won_with_and_the_training_mean() -> None:
    margins = {"helpful": held_out(20_000, scale=0.5), "harmless": held_out(20_000, scale=0.02, seed=1)}
    found = fit_calibration(REWARDS, NAMES, method="log_odds", margins=margins)
    assert found.method == "log_odds"
    assert found.constants["helpful"].scale == pytest.approx(0.5, rel=0.05)
    assert found.constants["harmless"].scale == pytest.approx(0.02, rel=0.3)
    np.testing.assert_allclose(found.apply_matrix(REWARDS).mean(axis=0), 0, atol=1e-12)


def test_the_log_odds_scale_is_the_most_likely_one_whatever_the_unit_of_the_reward() -> None:
    margin = held_out(300, scale=1.0)
    scale = log_odds_scale(margin, "helpful")
    likelihood = [float(-np.logaddexp(0, -s * margin).mean()) for s in (0.99 * scale, scale, 1.01 * scale)]
    assert likelihood[1] > max(likelihood[0], likelihood[2])
    for unit in (1e-6, 1e6):
        assert log_odds_scale(unit * margin, "helpful") == pytest.approx(scale / unit, rel=1e-6)


def test_calibrated_probabilities_are_right_on_average() -> None:
    margin = held_out(5000, scale=0.7)
    # What the likelihood's maximum means: winners' and losers' calibrated differences balance.
    surprise = 1 / (1 + np.exp(log_odds_scale(margin, "helpful") * margin))
    assert float((margin * surprise).mean()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("margin", "message"),
    [
        ([], "objective 'harmless' has no held-out pairs"),
        ([1.0, np.nan], "objective 'harmless' has a held-out margin that is not finite"),
        ([1.0, -2.0, 0.5], r"'harmless' is no better than chance on its 3 held-out pairs.*<= 0"),
        ([0.0, 0.0], "'harmless' is no better than chance"),
        ([1.0, 0.0, 2.0], "'harmless' gets all of its 3 held-out pairs right"),
    ],
)
def test_margins_without_a_scale_are_refused_by_name(margin: list[float], message: str) -> None:
    margins = {"helpful": held_out(50, scale=1.0), "harmless": np.array(margin)}
    with pytest.raises(ValueError, match=message):
        fit_calibration(REWARDS, NAMES, method="log_odds", margins=margins)


def test_log_odds_needs_margins_of_every_objective() -> None:
    with pytest.raises(
        ValueError, match=r"needs held-out margins of exactly \['helpful', 'harmless'\], got \[\]"
    ):
        fit_calibration(REWARDS, NAMES, method="log_odds")
    with pytest.raises(ValueError, match=r"got \['helpful'\]"):
        fit_calibration(REWARDS, NAMES, method="log_odds", margins={"helpful": held_out(50, scale=1.0)})
