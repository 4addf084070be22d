"""Explained KL against known answers."""

import numpy as np
import pytest
import torch
from preforch_training.orchestrator.config import Loss
from preforch_training.orchestrator.evaluation import explained_kl, losses, share_of_ceiling
from preforch_training.orchestrator.targets import best_constant, divergence
from preforch_training.statistics.bootstrap import Bootstrap

LOSSES: tuple[Loss, ...] = ("reverse", "forward")
BOOTSTRAP = Bootstrap(0, 100)


def some_weights(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([1.0, 1.0, 1.0], size=count)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_agree_with_the_loss_of_training(loss: Loss) -> None:
    f, target = some_weights(50, 0), some_weights(50, 1)
    trained = divergence(torch.tensor(f).log(), torch.tensor(target).log(), loss=loss)
    assert losses(f, target, loss=loss).mean() == pytest.approx(float(trained))


@pytest.mark.parametrize("loss", LOSSES)
def test_explained_kl_is_1_for_the_targets_and_0_for_the_best_constant(loss: Loss) -> None:
    target, prompts = some_weights(300, 2), np.arange(300) // 3
    constant = np.broadcast_to(best_constant(target, loss=loss), target.shape)
    perfect = explained_kl(target, target, prompts, loss=loss, bootstrap=BOOTSTRAP)
    assert (perfect.value, perfect.low) == pytest.approx((1.0, 1.0))
    assert explained_kl(constant, target, prompts, loss=loss, bootstrap=BOOTSTRAP).value == pytest.approx(
        0.0, abs=1e-9
    )
    assert explained_kl(constant[:, ::-1], target, prompts, loss=loss, bootstrap=BOOTSTRAP).value < 0


def test_share_of_the_ceiling_is_1_for_the_oracle_and_none_where_the_oracle_explains_nothing() -> None:
    target, prompts = some_weights(90, 4), np.arange(90)
    oracle = 0.7 * target + 0.3 / 3
    share = share_of_ceiling(oracle, oracle, target, prompts, loss="forward", bootstrap=BOOTSTRAP)
    assert share is not None
    assert (share.value, share.low, share.high) == pytest.approx((1.0, 1.0, 1.0))
    blind = np.roll(target, 1, axis=0)
    assert share_of_ceiling(oracle, blind, target, prompts, loss="forward", bootstrap=BOOTSTRAP) is None
