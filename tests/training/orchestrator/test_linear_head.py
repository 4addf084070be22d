"""Heads on frozen vectors: whatever the loss, they find the rule that made the labels; what they refuse."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from head_rows import fit_rows
from preforch_training.embeddings import stored
from preforch_training.embeddings.stored import store_vectors
from preforch_training.orchestrator.config import Loss
from preforch_training.orchestrator.linear_head import SPARSE_PENALTIES, Head, Labelled, fit_head
from preforch_training.orchestrator.targets import (
    best_constant,
    head_loss,
    softmax,
)
from preforch_training.statistics.lbfgs import minimise
from scipy.sparse import csr_matrix

LOSSES: list[Loss] = ["reverse", "forward", "regress", "bt_gate"]
Rows = tuple[np.ndarray, np.ndarray]


def world(
    loss: Loss, rows: int, *, seed: int, scale: float = 2.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of many sizes, labels, and the true weights, a linear softmax of the features."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 6)) * [1, 10, 0.1, 1, 1, 1] + [0, 100, 0, -1, 0, 0]
    logits = (features - [0, 100, 0, -1, 0, 0]) / [1, 10, 0.1, 1, 1, 1] @ np.array(
        [[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [0.5, 0.0, -0.5], *[[0.0] * 3] * 3]
    ) + [0.3, 0.0, -0.3]
    true = softmax(logits, 1.0)
    if loss == "bt_gate":
        margins = rng.normal(size=true.shape) * 2
        won = scale * (true * margins).sum(axis=1) + rng.logistic(size=rows) > 0
        return features, np.where(won[:, None], margins, -margins), true
    values = logits + 0.1 * rng.normal(size=true.shape)
    return features, values if loss == "regress" else softmax(values, 1.0), true


def fit(loss: Loss, *, rows: int = 600, **options: Any) -> tuple[Head, Rows, Rows]:
    train, held = world(loss, rows, seed=0)[:2], world(loss, 400, seed=1)[:2]
    return fit_rows(*train, held, **{"loss": loss, "tau": 1.0, **options}), train, held


def mean_loss(weights_NK: np.ndarray, labels_NK: np.ndarray, loss: Loss, log_scale: float = 0.0) -> float:
    scale = torch.tensor(log_scale, dtype=torch.float64)
    logits = torch.tensor(np.log(weights_NK))
    return float(
        head_loss(logits, torch.tensor(labels_NK), loss=loss, tau=1.0, log_scale=scale, entropy_prior=0.0)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_head_finds_the_linear_softmax_behind_its_labels(loss: Loss) -> None:
    head, _, _ = fit(loss, rows=6000 if loss == "bt_gate" else 600)
    features, _, true = world(loss, 300, seed=2)
    found = head.weights(features)
    assert np.abs(found - true).mean() < (0.03 if loss == "bt_gate" else 0.01)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(softmax(head.logits(features), 1.0), found)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_head_beats_the_best_constant_on_held_out_rows(loss: Loss) -> None:
    head, train, (features, labels) = fit(loss)
    constant = np.broadcast_to(best_constant(train[1], loss=loss, tau=1.0), labels.shape)
    found = mean_loss(head.weights(features), labels, loss, head.log_scale)
    assert found == pytest.approx(head.held_out_loss)
    assert found < mean_loss(constant, labels, loss, head.log_scale) - 0.02


@pytest.mark.parametrize("loss", LOSSES)
def test_vectors_that_say_nothing_leave_the_best_constant(loss: Loss) -> None:
    labels = world(loss, 500, seed=0)[1]
    head = fit_rows(np.ones((500, 2)), labels, (np.ones((500, 2)), labels), loss=loss, tau=0.5)
    expected = best_constant(labels, loss=loss, tau=0.5)
    np.testing.assert_allclose(head.weights(np.ones((1, 2)))[0], expected, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_head_does_not_depend_on_the_units_of_the_features(loss: Loss) -> None:
    head, (features, labels), (held, held_labels) = fit(loss)
    unit, offset = np.array([7.0, 0.01, 100.0, 1.0, 2.0, 3.0]), np.arange(6.0)
    other = fit_rows(
        features * unit + offset, labels, (held * unit + offset, held_labels), loss=loss, tau=1.0
    )
    np.testing.assert_allclose(other.weights(held * unit + offset), head.weights(held), atol=1e-4)


def test_sparse_vectors_are_read_as_they_are() -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((200, 12)) < 0.3, 1.0, 0.0)
    dense[:, 0] *= 100  # standardising would undo it
    labels = softmax(dense @ np.array([[0.02, 0.0], *rng.normal(size=(11, 2))]), 1.0)
    rows = Labelled(np.arange(200), labels)
    head = fit_head(csr_matrix(dense), rows, rows, loss="forward", tau=1.0)
    assert head.penalty in SPARSE_PENALTIES
    assert head.weights(csr_matrix(dense)) == pytest.approx(head.weights(dense))
    assert np.abs(head.weights(dense) - labels).max() < 0.05
    units = fit_head(csr_matrix(dense * 0.01), rows, rows, loss="forward", tau=1.0, penalties=(1e-2,))
    whole = fit_head(csr_matrix(dense), rows, rows, loss="forward", tau=1.0, penalties=(1e-2,))
    assert np.abs(units.weights(dense * 0.01) - whole.weights(dense)).max() > 0.02


def test_fits_of_the_same_rows_are_the_same() -> None:
    first, second = fit("bt_gate")[0], fit("bt_gate")[0]
    np.testing.assert_array_equal(first.weight_KD, second.weight_KD)
    assert first.grid == second.grid


# The scale of bt_gate.


def constant_margins(rows: int) -> np.ndarray:
    """Pairs chosen with the weights (0.70, 0.30) and the scale 1;
    small margins, where the bias is largest."""
    rng = np.random.default_rng(0)
    margins = rng.normal(size=(rows, 2)) / 2
    won = margins @ [0.7, 0.3] + rng.logistic(size=rows) > 0
    return np.where(won[:, None], margins, -margins)


def gate_with_fixed_scale(margins: np.ndarray, scale: float) -> float:
    labels, log_scale = torch.tensor(margins), torch.tensor(np.log(scale))

    def loss(point: torch.Tensor) -> list[torch.Tensor]:
        logits = point.expand(len(margins), 2)
        return [head_loss(logits, labels, loss="bt_gate", tau=1.0, log_scale=log_scale, entropy_prior=0.0)]

    return float(softmax(minimise(loss, np.zeros(2), limits=[None, None]), 1.0)[0])


def test_a_learned_scale_finds_a_true_weight_that_fixed_ones_miss_on_either_side() -> None:
    margins, nothing = constant_margins(200_000), np.zeros((200_000, 1))
    head = fit_rows(nothing, margins, (nothing, margins), loss="bt_gate", tau=1.0)
    assert head.weights(nothing[:1])[0, 0] == pytest.approx(0.70, abs=0.02)
    assert np.exp(head.log_scale) == pytest.approx(1.0, rel=0.05)
    assert gate_with_fixed_scale(margins, 1.0) == pytest.approx(0.70, abs=0.02)
    assert gate_with_fixed_scale(margins, 4.0) == pytest.approx(0.57, abs=0.03)
    assert gate_with_fixed_scale(margins, 0.5) == pytest.approx(0.89, abs=0.03)


def test_an_entropy_prior_pulls_towards_equal_weights() -> None:
    features = world("bt_gate", 50, seed=2)[0]
    largest = [fit("bt_gate", entropy_prior=prior)[0].weights(features).max(axis=1).mean()
               for prior in (0.0, 0.1, 10.0)]  # fmt: skip
    assert largest[0] > largest[1] > largest[2]
    assert largest[2] == pytest.approx(1 / 3, abs=0.05)


# Tau of regress.


def test_the_tau_of_regress_changes_without_another_fit() -> None:
    features = world("regress", 20, seed=2)[0]
    sharp, soft = fit("regress", tau=0.5)[0], fit("regress", tau=2.0)[0]
    np.testing.assert_allclose(sharp.times(0.25).weights(features), soft.weights(features), atol=1e-9)
    assert sharp.held_out_loss == pytest.approx(soft.held_out_loss)
    assert sharp.weights(features).max(axis=1).mean() > soft.weights(features).max(axis=1).mean() + 0.1


# The penalty.


def test_the_penalty_is_the_best_on_held_out_rows() -> None:
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(60, 40)), rng.dirichlet(np.ones(3), size=60)
    held = rng.normal(size=(500, 40)), rng.dirichlet(np.ones(3), size=500)
    head = fit_rows(noise, labels, held, loss="forward", tau=1.0, penalties=(0.001, 10.0))
    assert [point.penalty for point in head.grid] == [10.0, 0.001]
    assert head.penalty == 10.0
    assert head.held_out_loss == head.grid[0].held_out_loss < head.grid[1].held_out_loss
    assert head.grid[0].train_loss > head.grid[1].train_loss
    signal, _, _ = fit("forward", penalties=(0.001, 10.0))
    assert signal.penalty == 0.001


def test_starting_from_a_larger_penalty_does_not_change_a_fit() -> None:
    alone, _, (features, _) = fit("reverse", penalties=(0.01,))
    path = fit("reverse", penalties=(10.0, 1.0, 0.1, 0.01))[0]
    np.testing.assert_allclose(path.weights(features), alone.weights(features), atol=1e-4)


# What is refused.

GOOD = world("forward", 20, seed=0)[:2]


def refused(
    message: str, *, features: np.ndarray = GOOD[0], labels: np.ndarray = GOOD[1], **options: Any
) -> None:
    settings = {"held": GOOD, "loss": "forward", "tau": 1.0, **options}
    with pytest.raises(ValueError, match=message):
        fit_rows(features, labels, settings.pop("held"), **settings)


def test_what_is_not_finite_is_named() -> None:
    features, labels = GOOD[0].copy(), GOOD[1].copy()
    features[3, 2] = np.nan
    labels[5, 1] = np.inf
    refused("features: row 3, column 2 is nan", features=features)
    refused("training labels: row 5, column 1 is inf", labels=labels)
    refused("features: row 23, column 2 is nan", held=(features, GOOD[1]))


def test_shapes_that_do_not_fit_are_refused() -> None:
    features, labels = GOOD
    rows = Labelled(np.arange(20), labels)
    options: dict[str, Any] = {"loss": "forward", "tau": 1.0}
    with pytest.raises(ValueError, match=r"training rows .* got \(20, 6\), \(19,\) and \(20, 3\)"):
        fit_head(features, Labelled(np.arange(19), labels), rows, **options)
    with pytest.raises(ValueError, match=r"labels differ in their columns: training \(20, 3\), \(20, 2\)"):
        fit_head(features, rows, Labelled(np.arange(20), np.full((20, 2), 0.5)), **options)
    refused(r"K >= 2, got \(40, 6\), \(20,\) and \(20, 1\)", labels=np.ones((20, 1)))
    refused("at least 2 training rows, got 1", features=GOOD[0][:1], labels=GOOD[1][:1])
    refused("at least 1 held-out rows, got 0", held=(GOOD[0][:0], GOOD[1][:0]))


def test_a_prompt_with_many_pairs_is_read_once_and_counts_for_all() -> None:
    features, labels = world("forward", 60, seed=0)[:2]
    again = np.repeat(np.arange(60), 3)
    many = Labelled(again, labels[again])
    one = Labelled(np.arange(60), labels)
    options: dict[str, Any] = {"loss": "forward", "tau": 1.0, "penalties": (0.1,)}
    first, second = (fit_head(features, rows, rows, **options) for rows in (one, many))
    np.testing.assert_allclose(second.weight_KD, first.weight_KD, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_head_on_stored_vectors_is_the_one_on_the_same_in_memory(
    loss: Loss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = world(loss, 80, seed=0)[:2]
    features = (features + np.arange(features.shape[1])).astype(np.float32)
    # Prompts in no order, some with many rows, none of training's among the held-out ones.
    row_N = np.concatenate([np.random.default_rng(1).permutation(60), [3, 3, 59, 0]])
    train, held_out = Labelled(row_N, labels[row_N]), Labelled(np.arange(60, 80), labels[60:])
    options: dict[str, Any] = {"loss": loss, "tau": 0.5, "entropy_prior": 0.1 if loss == "bt_gate" else 0.0}
    in_memory = fit_head(features, train, held_out, **options)
    # Seven prompts a block.
    monkeypatch.setattr(stored, "BLOCK_NUMBERS", 7 * features.shape[1])
    found = fit_head(store_vectors(tmp_path / "vectors", [features]), train, held_out, **options)
    np.testing.assert_allclose(found.weight_KD, in_memory.weight_KD, atol=1e-3)
    np.testing.assert_allclose(found.bias_K, in_memory.bias_K, atol=1e-3)
    assert found.log_scale == pytest.approx(in_memory.log_scale, abs=1e-3)
    for one, other in zip(found.grid, in_memory.grid, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.held_out_loss == pytest.approx(other.held_out_loss, rel=1e-4)
    spoiled = features.copy()
    spoiled[50, 1] = np.inf
    with pytest.raises(ValueError, match="features: row 50, column 1 is inf"):
        fit_head(store_vectors(tmp_path / "spoiled", [spoiled]), train, held_out, **options)


def test_numbers_that_mean_nothing_are_refused() -> None:
    for tau in (0.0, -1.0, float("nan")):
        refused(f"tau must be positive, got {tau}", tau=tau)
    refused("penalties must be one or more positive numbers", penalties=())
    refused("penalties must be one or more positive numbers", penalties=(1.0, 0.0))
    refused("labels of the loss 'forward' must be weights, row 0", labels=GOOD[1] * 2)


def test_a_head_is_a_value() -> None:
    head = fit("forward")[0]
    assert replace(head, penalty=1.0).penalty == 1.0
    np.testing.assert_array_equal(head.times(2.0).weight_KD, 2 * head.weight_KD)
