"""Target weights and losses: the identities of Eq. 6 to 8, each against a formula written out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from preforch_training.orchestrator.config import Loss, Target
from preforch_training.orchestrator.targets import (
    LOG_SCALE_LIMIT,
    best_constant,
    constant_gate,
    divergence,
    head_loss,
    labels_for,
    softmax,
    target_values,
    target_weights,
)
from preforch_training.records import keys_of
from preforch_training.scores.pairs import PairRewards
from scipy.optimize import minimize

LOSSES: list[Loss] = ["reverse", "forward"]
EVERY_LOSS: list[Loss] = [*LOSSES, "regress", "bt_gate"]
TARGETS: list[Target] = ["chosen_softmax", "advantage_softmax", "margin_softmax"]
rewards = arrays(np.float64, (4, 3), elements=st.floats(-5, 5))
taus = st.floats(0.05, 10)


def simplex(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.dirichlet(np.ones(3), size=rows)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q), mean over rows, by the definition."""
    return float(np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=-1)))


@given(rewards, taus)
def test_weights_are_on_the_simplex_in_the_order_of_the_rewards(values: np.ndarray, tau: float) -> None:
    weights = softmax(values, tau)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    # The log ratio of two weights is the difference of their rewards over tau.
    ratios = np.log(np.maximum(weights[:, 0], 1e-300)) - np.log(np.maximum(weights[:, 1], 1e-300))
    np.testing.assert_allclose(ratios, (values[:, 0] - values[:, 1]) / tau, atol=1e-6, rtol=1e-6)


def test_a_small_tau_gives_the_best_objective_everything_and_a_large_one_equal_weights() -> None:
    values = np.array([[1.0, 2.0, 1.5]])
    np.testing.assert_allclose(softmax(values, 1e-3), [[0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(softmax(values, 1e6), [[1 / 3] * 3], atol=1e-6)


def test_rewards_of_any_size_give_finite_weights() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e6, 0.0, -1e6]]), 0.01), [[1, 0, 0]])


@given(rewards, rewards, rewards, taus)
def test_each_target_is_the_softmax_of_what_it_says(
    chosen: np.ndarray, rejected: np.ndarray, others: np.ndarray, tau: float
) -> None:
    expected = {
        "chosen_softmax": softmax(chosen, tau),
        "advantage_softmax": softmax(chosen - others, tau),
        "margin_softmax": softmax(chosen - rejected, tau),
    }
    for target in TARGETS:
        found = target_weights(chosen, rejected, others, target=target, tau=tau)
        np.testing.assert_array_equal(found, expected[target])


@given(rewards, rewards, arrays(np.float64, (4, 3), elements=st.floats(-5, 5)), taus)
def test_an_offset_per_prompt_and_objective_changes_only_the_targets_of_the_paper(
    chosen: np.ndarray, rejected: np.ndarray, offset: np.ndarray, tau: float
) -> None:
    for target in TARGETS[1:]:
        before = target_weights(chosen, rejected, rejected, target=target, tau=tau)
        after = target_weights(chosen + offset, rejected + offset, rejected + offset, target=target, tau=tau)
        np.testing.assert_allclose(after, before, atol=1e-9)


def test_the_target_of_the_paper_is_not_identified() -> None:
    chosen, other = np.array([[1.0, 0.0, 0.0]]), np.zeros((1, 3))
    before = target_weights(chosen, other, other, target="chosen_softmax", tau=1.0)
    after = target_weights(chosen + np.array([[0, 3, 0]]), other, other, target="chosen_softmax", tau=1.0)
    assert np.abs(after - before).max() > 0.3


@pytest.mark.parametrize("tau", [0.0, -1.0, np.inf, np.nan])
def test_a_tau_that_is_not_positive_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match=f"tau must be positive, got {tau}"):
        target_weights(np.ones((1, 3)), np.ones((1, 3)), np.ones((1, 3)), target="chosen_softmax", tau=tau)


@given(st.integers(0, 1000))
def test_reverse_is_kl_of_the_model_to_the_target_and_forward_the_other_way(seed: int) -> None:
    model, target = simplex(np.random.default_rng(seed), 5), simplex(np.random.default_rng(seed + 1), 5)
    found = {
        loss: float(divergence(torch.from_numpy(np.log(model)), torch.from_numpy(np.log(target)), loss=loss))
        for loss in LOSSES
    }
    assert found["reverse"] == pytest.approx(kl(model, target))
    assert found["forward"] == pytest.approx(kl(target, model))
    assert abs(found["reverse"] - found["forward"]) > 1e-9


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_zero_exactly_at_its_target(loss: Loss) -> None:
    target = torch.from_numpy(np.log(simplex(np.random.default_rng(0), 5)))
    assert float(divergence(target, target, loss=loss)) == pytest.approx(0, abs=1e-12)
    assert float(divergence(target.flip(0), target, loss=loss)) > 0.1


@settings(max_examples=20)
@given(st.integers(0, 1000))
@pytest.mark.parametrize("loss", LOSSES)
def test_the_best_constant_is_the_minimiser_of_its_loss(loss: Loss, seed: int) -> None:
    targets = simplex(np.random.default_rng(seed), 12)

    def objective(logits: np.ndarray) -> float:
        constant = np.broadcast_to(softmax(logits, 1.0), targets.shape)
        return kl(constant, targets) if loss == "reverse" else kl(targets, constant)

    found = best_constant(targets, loss=loss)
    numerical = softmax(minimize(objective, np.zeros(3), method="BFGS").x, 1.0)
    np.testing.assert_allclose(found, numerical, atol=1e-4)
    assert found.sum() == pytest.approx(1)


def test_the_two_best_constants_are_arithmetic_and_geometric_means() -> None:
    targets = np.array([[0.9, 0.1], [0.5, 0.5]])
    np.testing.assert_allclose(best_constant(targets, loss="forward"), [0.7, 0.3])
    geometric = np.sqrt([0.9 * 0.5, 0.1 * 0.5])
    np.testing.assert_allclose(best_constant(targets, loss="reverse"), geometric / geometric.sum())


def test_a_target_of_zero_gives_a_finite_best_constant() -> None:
    for loss in LOSSES:
        found = best_constant(np.array([[1.0, 0.0], [0.5, 0.5]]), loss=loss)
        assert np.isfinite(found).all()
        assert found.sum() == pytest.approx(1)


# Labels and losses of a head.


def mean_loss(logits: np.ndarray, labels: np.ndarray, loss: Loss, **options: float) -> float:
    settings: dict[str, float] = {"tau": 1.0, "entropy_prior": 0.0, **options}
    log_scale = torch.tensor(settings.pop("log_scale", 0.0), dtype=torch.float64)
    found = head_loss(torch.tensor(logits), torch.tensor(labels), loss=loss, log_scale=log_scale, **settings)
    return float(found)


def test_labels_are_weights_values_or_margins() -> None:
    rng = np.random.default_rng(0)
    chosen, rejected, others = rng.normal(size=(3, 5, 3))
    pairs = PairRewards(
        prompt_key_N=keys_of("abcde"), chosen_NK=chosen, rejected_NK=rejected, others_NK=others
    )
    values = {
        "chosen_softmax": chosen,
        "advantage_softmax": chosen - others,
        "margin_softmax": chosen - rejected,
    }
    for target in TARGETS:
        np.testing.assert_array_equal(target_values(chosen, rejected, others, target=target), values[target])
        for loss in LOSSES:
            np.testing.assert_array_equal(
                labels_for(pairs, target=target, tau=0.3, loss=loss), softmax(values[target], 0.3)
            )
        np.testing.assert_array_equal(
            labels_for(pairs, target=target, tau=0.3, loss="regress"), values[target]
        )
        np.testing.assert_array_equal(
            labels_for(pairs, target=target, tau=0.3, loss="bt_gate"), chosen - rejected
        )
    with pytest.raises(ValueError, match="tau must be positive, got 0"):
        labels_for(pairs, target="margin_softmax", tau=0, loss="bt_gate")


@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_no_loss_changes_when_a_number_is_added_to_all_logits(loss: Loss) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 3)), simplex(rng, 6)
    shifted = logits + rng.normal(size=(6, 1))
    options = {"tau": 0.4, "log_scale": 0.7, "entropy_prior": 0.2}
    assert mean_loss(shifted, labels, loss, **options) == pytest.approx(
        mean_loss(logits, labels, loss, **options)
    )


def test_regress_is_the_squared_error_of_tau_times_the_logits() -> None:
    logits, values = np.array([[1.0, -1.0], [0.5, -0.5]]), np.array([[0.3, -0.3], [0.0, 0.0]])
    assert mean_loss(logits, values, "regress", tau=0.3) == pytest.approx((0 + 0.15**2) / 2)
    # A mean reward has no say in the weights.
    assert mean_loss(logits, values + 7, "regress", tau=0.3) == pytest.approx((0 + 0.15**2) / 2)


def test_bt_gate_is_the_likelihood_of_the_choice_with_a_prior_on_entropy() -> None:
    weights, margins = np.array([[0.7, 0.3], [0.5, 0.5]]), np.array([[1.0, -2.0], [3.0, 1.0]])
    likely = np.mean([np.log(1 + np.exp(-2 * 0.1)), np.log(1 + np.exp(-2 * 2.0))])
    entropy = np.mean([-0.7 * np.log(0.7) - 0.3 * np.log(0.3), np.log(2)])
    found = mean_loss(np.log(weights), margins, "bt_gate", log_scale=np.log(2.0), entropy_prior=0.25)
    assert found == pytest.approx(likely - 0.25 * entropy)


@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_the_best_constant_of_every_loss_is_its_minimiser(loss: Loss) -> None:
    rng = np.random.default_rng(1)
    labels = (
        rng.normal(loc=[0.6, 0.3, 0.1], size=(60, 3)) if loss in ("regress", "bt_gate") else simplex(rng, 60)
    )
    options = {"tau": 0.5, "entropy_prior": 0.05}

    def objective(point: np.ndarray) -> float:
        return mean_loss(
            np.broadcast_to(point[:3], labels.shape).copy(), labels, loss, log_scale=point[3], **options
        )

    numerical = softmax(minimize(objective, np.zeros(4), method="BFGS").x[:3], 1.0)
    np.testing.assert_allclose(best_constant(labels, loss=loss, **options), numerical, atol=1e-3)


def test_a_constant_that_never_errs_has_a_finite_scale() -> None:
    margins_NK = np.array([[1.0, -1.1], [2.0, -2.2], [0.5, 0.1]])
    weights_K, log_scale = constant_gate(margins_NK)
    assert (margins_NK @ weights_K > 0).all()
    assert 2 < log_scale <= LOG_SCALE_LIMIT


def test_the_scale_of_margins_without_an_error_ends_at_its_limit() -> None:
    assert constant_gate(np.full((4, 2), 0.01))[1] == pytest.approx(5) == LOG_SCALE_LIMIT


def test_a_constant_that_is_wrong_as_often_as_right_has_the_smallest_scale() -> None:
    margins_NK = np.array([[1.0, 1.0], [-1.0, -1.0]])
    weights_K, log_scale = constant_gate(margins_NK)
    np.testing.assert_allclose(weights_K, [0.5, 0.5], atol=1e-6)
    assert log_scale == pytest.approx(-LOG_SCALE_LIMIT, abs=0.1)


def test_margins_in_single_precision_are_fitted_in_double() -> None:
    margins_NK = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    single, double = (constant_gate(margins_NK.astype(kind))[0] for kind in (np.float32, np.float64))
    assert single.dtype == np.float64
    np.testing.assert_array_equal(single, double)


def test_a_loss_is_finite_at_a_target_of_zero() -> None:
    logits, labels = np.zeros((1, 2)), np.array([[1.0, 0.0]])
    assert mean_loss(logits, labels, "forward") == pytest.approx(np.log(2))
    assert mean_loss(logits, labels, "reverse") == pytest.approx(-np.log(2) - 0.5 * np.log(1e-9))


def test_without_a_scale_or_a_prior_the_gate_is_the_plain_likelihood() -> None:
    logits, margins = torch.log(torch.tensor([[0.7, 0.3]])), torch.tensor([[1.0, -2.0]])
    found = head_loss(logits, margins, loss="bt_gate", tau=1.0)
    assert float(found) == pytest.approx(np.log(1 + np.exp(-0.1)))
    rows = np.random.default_rng(2).normal(loc=[0.5, 0.2], size=(40, 2))
    np.testing.assert_array_equal(constant_gate(rows)[0], constant_gate(rows, entropy_prior=0.0)[0])
    np.testing.assert_array_equal(best_constant(rows, loss="bt_gate"), constant_gate(rows)[0])
    np.testing.assert_allclose(best_constant(rows, loss="regress"), softmax(rows.mean(axis=0), 1.0))
