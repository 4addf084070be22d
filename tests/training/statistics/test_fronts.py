"""Indicators of fronts against values by hand."""

import numpy as np
import pytest
from preforch_training.statistics.fronts import additive_epsilon, dirichlet, expected_utility, hypervolume

LOW, HIGH = np.array([1.0, 10.0]), np.array([3.0, 20.0])


def test_hypervolume_is_the_union_of_the_boxes_in_units_of_the_whole() -> None:
    points = np.array([[2.0, 15.0], [1.5, 20.0], [0.0, 30.0]])
    # Boxes of 1/2 x 1/2 and 1/4 x 1, which share 1/4 x 1/2; the third point is below the reference in one.
    assert hypervolume(points, LOW, HIGH) == pytest.approx(1 / 4 + 1 / 4 - 1 / 8)
    assert hypervolume(HIGH[None], LOW, HIGH) == pytest.approx(1)
    assert hypervolume(LOW[None] - 1, LOW, HIGH) == 0


def test_hypervolume_of_three_objectives() -> None:
    points = np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0], [0.5, 0.5, 0.5]])
    assert hypervolume(points, np.zeros(3), np.ones(3)) == pytest.approx(3 * 0.25 - 2 * 0.125)


def test_epsilon_is_what_is_missing_to_the_front() -> None:
    front = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert additive_epsilon(np.array([[0.25, 0.25]]), front) == pytest.approx(0.75)
    assert additive_epsilon(front, front) == 0
    assert additive_epsilon(front + 0.5, front) == pytest.approx(-0.5)


def test_expected_utility_takes_the_best_point_for_each_weights() -> None:
    points, weights = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.9, 0.1], [0.3, 0.7]])
    assert expected_utility(points, weights) == pytest.approx((0.9 + 0.7) / 2)
    # max(w, 1 - w) of a uniform w is 3/4 on average.
    assert expected_utility(points, dirichlet(2, draws=20_000, seed=1)) == pytest.approx(0.75, abs=0.005)
