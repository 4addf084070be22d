"""The alignment gap against closed forms, brute force and pools whose w* is known."""

import numpy as np
import pytest
from pool_world import HALF, REWARDS, drawn_pools, two_kinds
from preforch_training.statistics.bootstrap import Bootstrap
from preforch_training.study.alignment.closed_form import (
    Pool,
    check_pool,
    gap,
    gap_bounds,
    gap_table,
    gaps,
    learning_curve,
    policy,
    potential,
)

NEARLY_HALF = np.array([0.501, 0.499])


def test_identity_and_both_bounds_hold_on_random_pools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        answers, objectives = int(rng.integers(2, 20)), int(rng.integers(2, 6))
        found = check_pool(
            rng.normal(size=(answers, objectives)) * 10 ** rng.uniform(-1, 1),
            rng.dirichlet(np.ones(objectives)),
            rng.dirichlet(np.ones(objectives)),
            beta=float(10 ** rng.uniform(-2, 1)),
            reference_Y=rng.dirichlet(np.ones(answers)) + 1e-6,
        )
        assert found.worst < 1e-9


def test_two_responses_have_a_closed_form() -> None:
    r_YK, w_K, gold_K, beta = REWARDS[:2], np.array([0.3, 0.7]), np.array([0.8, 0.2]), 0.5
    p, q = 1 / (1 + np.exp(0.4 / beta)), 1 / (1 + np.exp(-0.6 / beta))
    assert policy(r_YK, w_K, beta=beta) == pytest.approx([p, 1 - p])
    expected = beta * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert gap(r_YK, w_K, gold_K, beta=beta) == pytest.approx(expected)


def test_gap_is_the_loss_against_the_best_policy_and_not_the_divergence_the_other_way_round() -> None:
    w_K, gold_K, beta = np.array([0.1, 0.9]), np.array([0.7, 0.3]), 0.2
    used_Y, best_Y = policy(REWARDS, w_K, beta=beta), policy(REWARDS, gold_K, beta=beta)

    def worth(pi_Y: np.ndarray) -> float:
        return float(pi_Y @ REWARDS @ gold_K - beta * (pi_Y @ np.log(pi_Y * len(pi_Y))))

    assert worth(best_Y) == pytest.approx(potential(REWARDS, gold_K, beta=beta))
    assert gap(REWARDS, w_K, gold_K, beta=beta) == pytest.approx(worth(best_Y) - worth(used_Y))
    turned = beta * float(best_Y @ np.log(best_Y / used_Y))
    assert abs(turned - gap(REWARDS, w_K, gold_K, beta=beta)) > 0.01


def test_bounds_are_tight_where_they_can_be() -> None:
    nearly = gap_bounds(REWARDS, HALF, NEARLY_HALF, beta=1.0)
    assert nearly.lower == pytest.approx(gap(REWARDS, HALF, NEARLY_HALF, beta=1.0), rel=0.01)
    # Two equally likely responses have the largest variance of all with this range.
    assert nearly.upper > nearly.lower
    even = gap_bounds(REWARDS[:2], HALF, NEARLY_HALF, beta=1.0)
    assert even.lower == pytest.approx(even.upper, rel=0.01)


def test_the_reference_counts_and_an_unused_scale_of_it_does_not() -> None:
    reference_Y = np.array([8.0, 1.0, 1.0])
    assert policy(REWARDS * 0, HALF, beta=1.0, reference_Y=reference_Y) == pytest.approx([0.8, 0.1, 0.1])
    assert potential(REWARDS * 0 + 3, HALF, beta=1.0, reference_Y=reference_Y) == pytest.approx(3.0)


def test_huge_rewards_neither_overflow_nor_lose_the_gap() -> None:
    assert policy(REWARDS * 1e6, np.array([1.0, 0.0]), beta=0.01) == pytest.approx([1, 0, 0])
    assert gap(REWARDS[:2] * 1e6, np.array([1.0, 0.0]), np.array([0.0, 1.0]), beta=0.01) == pytest.approx(1e6)


def test_the_table_ranks_predictors_by_their_distance_from_w_star() -> None:
    gold_PK = two_kinds(60)
    pools = drawn_pools(gold_PK, seed=8)
    constant_PK = np.tile(HALF, (60, 1))
    predictors = {
        "w*": gold_PK,
        "near": 0.8 * gold_PK + 0.1,
        "best constant": constant_PK,
        "wrong": gold_PK[::-1],
    }
    rows = {
        row.name: row for row in gap_table(pools, predictors, gold_PK, beta=1.0, bootstrap=Bootstrap(0, 300))
    }
    assert rows["w*"].gap.value == 0
    assert rows["best constant"].minus_constant is None
    assert rows["best constant"].gap.value == pytest.approx(
        gaps(pools, constant_PK, gold_PK, beta=1.0).mean()
    )
    near, wrong = rows["near"].minus_constant, rows["wrong"].minus_constant
    assert near is not None
    assert wrong is not None
    assert near.value == pytest.approx(rows["near"].gap.value - rows["best constant"].gap.value)
    assert near.high < 0 < wrong.low
    assert near.groups == 60


def test_the_learning_curve_averages_repetitions_and_is_in_order() -> None:
    gold_PK = two_kinds(40)
    pools = drawn_pools(gold_PK, seed=9)
    constant_PK = np.tile(HALF, (40, 1))
    points = learning_curve(
        pools, {100: [gold_PK], 10: [constant_PK, gold_PK]}, gold_PK, beta=1.0, bootstrap=Bootstrap(0, 100)
    )
    assert [point.prompts for point in points] == [10, 100]
    assert points[0].gap.value == pytest.approx(gaps(pools, constant_PK, gold_PK, beta=1.0).mean() / 2)
    assert points[1].gap.value == 0
    with pytest.raises(ValueError, match="no weights for 5 training prompts"):
        learning_curve(pools, {5: []}, gold_PK, beta=1.0, bootstrap=Bootstrap(0, 100))


@pytest.mark.parametrize(
    ("rewards", "weights", "beta", "message"),
    [
        (REWARDS, HALF, 0.0, "beta must be positive and finite, got 0.0"),
        (REWARDS, HALF, -1.0, "beta must be positive"),
        (REWARDS, HALF, np.inf, "beta must be positive"),
        (REWARDS, HALF, np.nan, "beta must be positive"),
        (REWARDS, np.ones(3), 1.0, "weights must be 2 finite numbers"),
        (REWARDS, np.array([np.nan, 1.0]), 1.0, "weights must be 2 finite numbers"),
        (REWARDS[0], HALF, 1.0, r"shape \(responses, objectives\)"),
        (REWARDS[:0], HALF, 1.0, "neither zero"),
        (np.full((3, 2), np.inf), HALF, 1.0, "rewards must be finite"),
    ],
)
def test_wrong_numbers_are_refused(
    rewards: np.ndarray, weights: np.ndarray, beta: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gap(rewards, weights, weights, beta=beta)


@pytest.mark.parametrize("reference", [[1.0, 1.0], [1.0, 0.0, 1.0], [1.0, np.nan, 1.0]])
def test_a_wrong_reference_is_refused(reference: list[float]) -> None:
    with pytest.raises(ValueError, match="pi_ref must be 3 positive finite numbers"):
        policy(REWARDS, HALF, beta=1.0, reference_Y=np.array(reference))


def test_wrong_pools_and_tables_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="prompt 'p7': good_Y must hold one boolean for each of the 3"):
        Pool("p7", REWARDS, np.array([True, False]))
    with pytest.raises(ValueError, match="prompt 'p8': rewards must be finite"):
        Pool("p8", np.full((2, 2), np.nan), np.array([True, False]))
    pool, weights_PK = Pool("p9", REWARDS, np.array([True, False, False])), HALF[None]
    with pytest.raises(ValueError, match=r"weights of prompt 'p9': not on the simplex"):
        gaps([pool], weights_PK * 2, weights_PK, beta=1.0)
    with pytest.raises(ValueError, match=r"w\*: expected shape \(1, 2\)"):
        gaps([pool], weights_PK, HALF, beta=1.0)
    with pytest.raises(ValueError, match="no predictor named 'best constant'"):
        gap_table([pool], {"f": weights_PK}, weights_PK, beta=1.0, bootstrap=Bootstrap(0, 10))
