"""How K rewards become one: hand-computed groups of four responses."""

import numpy as np
import pytest
from preforch_training.policy.reinforced.combine import combiner
from preforch_training.policy.settings.rl import Combine

# Means 1 and 2, deviations 1 and 0.5.
REWARDS_GK = np.array([[0.0, 2.5], [2.0, 2.5], [2.0, 1.5], [0.0, 1.5]])
# Of objective 1 three quarters are below the mean of the group, of objective 2 none.
KNOWN_NK = np.array([[9.0, 3.0], [-1.0, 6.0], [0.0, 5.0], [0.5, 4.0]])
WEIGHTS_K = np.array([0.25, 0.75])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sum", [1.875, 2.375, 1.625, 1.125]),
        ("gdpo", [0.5, 1.0, -0.5, -1.0]),
        # Weights times deviations are 0.25 and 0.375: 0.4 and 0.6 of their sum.
        ("dvao", [0.2, 1.0, -0.2, -1.0]),
        # 0.25 * sqrt(1 / 4) and 0.75 * 1: 1 / 7 and 6 / 7 of their sum.
        ("saturation", [15 / 7, 17 / 7, 11 / 7, 9 / 7]),
    ],
)
def test_a_group_by_hand(name: Combine, expected: list[float]) -> None:
    found = combiner(name, KNOWN_NK)(REWARDS_GK, WEIGHTS_K)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["sum", "gdpo", "dvao", "saturation"])
def test_a_prompt_s_weights_decide_which_response_is_best(name: Combine) -> None:
    """Normalised over prompts, each objective by itself, they would cancel."""
    combine = combiner(name, KNOWN_NK)
    rewards_GK = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert combine(rewards_GK, np.array([0.9, 0.1])).argmax() == 0
    assert combine(rewards_GK, np.array([0.1, 0.9])).argmax() == 1


@pytest.mark.parametrize("name", ["sum", "gdpo", "dvao", "saturation"])
def test_a_group_without_differences_is_one_number(name: Combine) -> None:
    found = combiner(name, KNOWN_NK)(np.full((3, 2), 0.1), WEIGHTS_K)
    assert np.isfinite(found).all()
    assert np.ptp(found) < 1e-12


def test_saturation_of_every_objective_leaves_nothing_to_gain() -> None:
    found = combiner("saturation", KNOWN_NK)(REWARDS_GK + 100, WEIGHTS_K)
    np.testing.assert_array_equal(found, 0.0)
