"""The maths of the report against known answers."""

import numpy as np
import pytest
import torch
from preforch_training.orchestrator.config import Loss
from preforch_training.orchestrator.targets import (
    best_constant,
    divergence,
)
from preforch_training.statistics.bootstrap import bootstrap, mean_interval
from preforch_training.statistics.metrics import (
    control,
    explained_kl,
    losses,
    preference_hits,
    share_of_ceiling,
    simplex_grid,
    spearman,
    strictly_dominated,
)
from scipy.stats import spearmanr

LOSSES: tuple[Loss, ...] = ("reverse", "forward")


def some_weights(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([1.0, 1.0, 1.0], size=count)


def test_bootstrap_interval_of_a_mean_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        interval = mean_interval(rng.normal(size=60), np.arange(60), seed=trial, draws=300)
        covered += interval.low <= 0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_rows_of_one_prompt_count_as_one_observation() -> None:
    values = np.random.default_rng(0).normal(size=20)
    alone = mean_interval(values, np.arange(20), seed=1, draws=500)
    copied = mean_interval(np.repeat(values, 50), np.repeat(np.arange(20), 50), seed=1, draws=500)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert copied.groups == 20


def test_prompts_with_more_rows_weigh_more() -> None:
    assert mean_interval(np.array([1.0, 1, 1, 0]), np.array([5, 5, 5, 9]), seed=0, draws=100).value == 0.75


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        bootstrap(lambda counts: counts[:, 0], groups=0, seed=0, draws=100)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_agree_with_the_loss_of_training(loss: Loss) -> None:
    f, target = some_weights(50, 0), some_weights(50, 1)
    trained = divergence(torch.tensor(f).log(), torch.tensor(target).log(), loss=loss)
    assert losses(f, target, loss=loss).mean() == pytest.approx(float(trained))


@pytest.mark.parametrize("loss", LOSSES)
def test_explained_kl_is_1_for_the_targets_and_0_for_the_best_constant(loss: Loss) -> None:
    target, prompts = some_weights(300, 2), np.arange(300) // 3
    constant = np.broadcast_to(best_constant(target, loss=loss), target.shape)
    perfect = explained_kl(target, target, prompts, loss=loss, seed=0, draws=100)
    assert (perfect.value, perfect.low) == pytest.approx((1.0, 1.0))
    assert explained_kl(constant, target, prompts, loss=loss, seed=0, draws=100).value == pytest.approx(
        0.0, abs=1e-9
    )
    assert explained_kl(constant[:, ::-1], target, prompts, loss=loss, seed=0, draws=100).value < 0


def test_share_of_the_ceiling_is_1_for_the_oracle_and_none_where_the_oracle_explains_nothing() -> None:
    target, prompts = some_weights(90, 4), np.arange(90)
    oracle = 0.7 * target + 0.3 / 3
    share = share_of_ceiling(oracle, oracle, target, prompts, loss="forward", seed=0, draws=100)
    assert share is not None
    assert (share.value, share.low, share.high) == pytest.approx((1.0, 1.0, 1.0))
    blind = np.roll(target, 1, axis=0)
    assert share_of_ceiling(oracle, blind, target, prompts, loss="forward", seed=0, draws=100) is None


def test_preference_hits_count_ties_as_a_half() -> None:
    margins = np.array([[1.0, -1.0], [-1.0, 0.0], [1.0, -1.0]])
    weights = np.array([[0.8, 0.2], [0.8, 0.2], [0.5, 0.5]])
    assert preference_hits(weights, margins).tolist() == [1.0, 0.0, 0.5]


def test_the_grid_has_21_points_for_three_objectives_and_lies_on_the_simplex() -> None:
    grid = simplex_grid(3, 0.2)
    assert grid.shape == (21, 3)
    assert len({tuple(point) for point in grid.round(6).tolist()}) == 21
    assert np.allclose(grid.sum(axis=1), 1)
    assert grid.min() >= 0
    assert simplex_grid(2, 0.5).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    with pytest.raises(ValueError, match="divide 1"):
        simplex_grid(3, 0.3)


def test_spearman_agrees_with_scipy_and_is_0_where_nothing_varies() -> None:
    rng = np.random.default_rng(5)
    asked, obtained = simplex_grid(3, 0.2), rng.normal(size=(4, 21, 3))
    obtained[0, :, 1] = 2.0
    found = spearman(asked, obtained)
    assert found[0, 1] == 0
    for b, k in [(0, 0), (1, 1), (3, 2)]:
        assert found[b, k] == pytest.approx(spearmanr(asked[:, k], obtained[b, :, k]).statistic)


def test_control_is_1_in_a_linear_world_and_minus_1_for_a_policy_that_does_the_opposite() -> None:
    grid = simplex_grid(3, 0.2)
    rewards = grid[None] + np.linspace(-3, 3, 10)[:, None, None]
    for found in control(grid, rewards, seed=0, draws=100):
        assert (found.value, found.low) == pytest.approx((1.0, 1.0))
    assert [found.value for found in control(grid, -rewards, seed=0, draws=100)] == pytest.approx([-1.0] * 3)


def test_a_point_is_strictly_dominated_only_when_another_is_higher_in_every_objective() -> None:
    points = np.array([[1.0, 1.0], [2.0, 2.0], [2.0, 1.0], [0.0, 3.0]])
    assert strictly_dominated(points).tolist() == [True, False, False, False]
