"""The maths of the report against known answers."""

from typing import Any

import numpy as np
import pytest
from preforch_training.statistics.bootstrap import Bootstrap, interval_of, mean_interval
from preforch_training.statistics.metrics import (
    control,
    correlations,
    kendall,
    logistic_scale,
    margin_correlations,
    pair_hits,
    preference_hits,
    simplex_grid,
    spearman,
    strictly_dominated,
)
from scipy.optimize import minimize_scalar
from scipy.stats import kendalltau, spearmanr


def test_bootstrap_interval_of_a_mean_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        interval = mean_interval(rng.normal(size=60), np.arange(60), bootstrap=Bootstrap(trial, 300))
        covered += interval.low <= 0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_rows_of_one_prompt_count_as_one_observation() -> None:
    values = np.random.default_rng(0).normal(size=20)
    alone = mean_interval(values, np.arange(20), bootstrap=Bootstrap(1, 500))
    copied = mean_interval(np.repeat(values, 50), np.repeat(np.arange(20), 50), bootstrap=Bootstrap(1, 500))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert copied.groups == 20


def test_prompts_with_more_rows_weigh_more() -> None:
    assert (
        mean_interval(np.array([1.0, 1, 1, 0]), np.array([5, 5, 5, 9]), bootstrap=Bootstrap(0, 100)).value
        == 0.75
    )


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        interval_of(lambda counts: counts[:, 0], groups=0, bootstrap=Bootstrap(0, 100))


def test_preference_hits_count_ties_as_a_half() -> None:
    margins = np.array([[1.0, -1.0], [-1.0, 0.0], [1.0, -1.0]])
    weights = np.array([[0.8, 0.2], [0.8, 0.2], [0.5, 0.5]])
    assert preference_hits(weights, margins).tolist() == [1.0, 0.0, 0.5]


def test_pair_hits_are_1_for_the_right_order_0_for_the_wrong_one_and_a_half_at_ties() -> None:
    assert pair_hits(np.array([[2.0, -0.1], [0.0, 1e-9]])).tolist() == [[1.0, 0.0], [0.5, 1.0]]


def test_the_logistic_scale_is_the_likeliest_and_knows_its_limits() -> None:
    margin_N = np.random.default_rng(1).normal(0.4, 1.0, size=300)

    def loss(scale: float) -> float:
        return float(np.logaddexp(0, -scale * margin_N).mean())

    best = minimize_scalar(loss, bounds=(0.0, 10.0), method="bounded", options={"xatol": 1e-9})
    assert logistic_scale(margin_N) == pytest.approx(best.x, rel=1e-5)
    assert logistic_scale(100 * margin_N) == pytest.approx(best.x / 100, rel=1e-5)
    assert logistic_scale(-margin_N) == logistic_scale(np.zeros(3)) == 0.0
    assert logistic_scale(np.array([0.0, 2.0])) == np.inf


def test_correlations_are_those_of_numpy_and_zero_for_a_column_that_never_varies() -> None:
    values_NK = np.random.default_rng(0).normal(size=(40, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 2]])
    np.testing.assert_allclose(correlations(values_NK), np.corrcoef(values_NK.T), atol=1e-12)
    flat_KK = correlations(values_NK * [1, 1, 0] + 7)
    np.testing.assert_allclose(flat_KK[2], 0.0)
    assert flat_KK[0, 1] == pytest.approx(np.corrcoef(values_NK.T)[0, 1])
    named = margin_correlations(values_NK, ("c", "b", "a"))
    assert list(named) == list(named["b"]) == ["c", "b", "a"]
    assert named["c"]["b"] == named["b"]["c"] == correlations(values_NK)[0, 1]


def test_the_grid_has_21_points_for_three_objectives_and_lies_on_the_simplex() -> None:
    grid = simplex_grid(3, 0.2)
    assert grid.shape == (21, 3)
    assert len({tuple(point) for point in grid.round(6).tolist()}) == 21
    assert np.allclose(grid.sum(axis=1), 1)
    assert grid.min() >= 0
    assert simplex_grid(2, 0.5).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    with pytest.raises(ValueError, match="divide 1"):
        simplex_grid(3, 0.3)


@pytest.mark.parametrize(("ours", "theirs"), [(spearman, spearmanr), (kendall, kendalltau)])
def test_rank_correlations_agree_with_scipy_and_are_0_where_nothing_varies(ours: Any, theirs: Any) -> None:
    rng = np.random.default_rng(5)
    asked, obtained = simplex_grid(3, 0.2), rng.normal(size=(4, 21, 3)).round(1)  # with ties on both sides
    obtained[0, :, 1] = 2.0
    found = ours(asked, obtained)
    assert found[0, 1] == 0
    for b, k in [(0, 0), (1, 1), (3, 2)]:
        assert found[b, k] == pytest.approx(theirs(asked[:, k], obtained[b, :, k]).statistic)


def test_control_is_1_in_a_linear_world_and_minus_1_for_a_policy_that_does_the_opposite() -> None:
    grid = simplex_grid(3, 0.2)
    rewards = grid[None] + np.linspace(-3, 3, 10)[:, None, None]
    for found in control(grid, rewards, bootstrap=Bootstrap(0, 100)):
        assert (found.value, found.low) == pytest.approx((1.0, 1.0))
    assert [found.value for found in control(grid, -rewards, bootstrap=Bootstrap(0, 100))] == pytest.approx(
        [-1.0] * 3
    )


def test_a_point_is_strictly_dominated_only_when_another_is_higher_in_every_objective() -> None:
    points = np.array([[1.0, 1.0], [2.0, 2.0], [2.0, 1.0], [0.0, 3.0]])
    assert strictly_dominated(points).tolist() == [True, False, False, False]
