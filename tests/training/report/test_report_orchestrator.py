"""The part of the report about the orchestrator, in a world where the best weights are known."""

from dataclasses import replace

import numpy as np
import pytest
from preforch_training.orchestrator.config import Loss
from preforch_training.orchestrator.targets import (
    best_constant,
    softmax,
)
from preforch_training.report.orchestrator import (
    constant_weights,
    group_weights,
    report_orchestrator,
)
from preforch_training.report.records import OrchestratorReport, Predictor
from preforch_training.statistics.metrics import shuffle_within
from preforch_training.statistics.predictors import CONSTANT, LINEAR, ORACLE, SHUFFLED, TRUE, UNIFORM, F
from report_world import BOOTSTRAP, FAMILIES, make_facts


def by_name(report: OrchestratorReport, split: str) -> dict[str, Predictor]:
    return {entry.name: entry for entry in report.predictors if entry.split == split}


@pytest.mark.parametrize("loss", ["reverse", "forward", "regress", "bt_gate"])
def test_a_perfect_orchestrator_reaches_the_ceiling_and_beats_everything_that_cannot_read(loss: Loss) -> None:
    facts = make_facts()
    assert facts.true_PK is not None
    report = report_orchestrator(facts, facts.true_PK, loss=loss, bootstrap=BOOTSTRAP)
    for ceiling in report.ceilings:
        assert ceiling.share is not None
        assert ceiling.share.value == pytest.approx(1.0, abs=0.05)
    found = by_name(report, "test_topic")
    assert set(found) == {F, UNIFORM, CONSTANT, SHUFFLED, LINEAR, ORACLE, TRUE}
    for blind in (UNIFORM, CONSTANT, SHUFFLED):
        assert found[blind].explained_kl.value < 0.05 < found[F].explained_kl.low
        assert found[blind].preference_accuracy.high < found[F].preference_accuracy.low
    # In this world the family is a word of the prompt, so counting words suffices.
    assert found[LINEAR].explained_kl.value == pytest.approx(found[F].explained_kl.value, abs=0.1)
    top, kl = found[F].true_top, found[F].true_kl
    assert top is not None
    assert kl is not None
    assert (top.value, kl.value) == pytest.approx((1.0, 0.0))


def test_a_shuffled_orchestrator_explains_less_than_a_constant() -> None:
    facts = make_facts()
    assert facts.true_PK is not None
    found = by_name(
        report_orchestrator(facts, facts.true_PK, loss="reverse", bootstrap=BOOTSTRAP), "test_both"
    )
    assert found[SHUFFLED].explained_kl.high < 0
    shuffled_top = found[SHUFFLED].true_top
    assert shuffled_top is not None
    assert shuffled_top.value < 0.6


def test_the_constant_of_a_loss_without_target_weights_is_the_one_of_that_loss() -> None:
    values = np.random.default_rng(0).normal(loc=[1, 0.5, 0], size=(40, 3))
    facts = replace(make_facts(), target_NK=softmax(values, 0.5), margin_NK=values)
    rows = np.arange(40)
    expected = {
        "forward": softmax(values, 0.5).mean(axis=0),
        "regress": best_constant(values, loss="regress", tau=0.5),
        "bt_gate": best_constant(values, loss="bt_gate"),
    }
    for loss in ("forward", "regress", "bt_gate"):
        np.testing.assert_allclose(constant_weights(facts, rows, loss=loss), expected[loss], atol=1e-9)
    assert np.abs(expected["regress"] - expected["forward"]).max() > 0.01
    assert np.abs(expected["bt_gate"] - expected["forward"]).max() > 0.01


def test_shuffling_stays_within_labels_and_moves_every_row() -> None:
    weights = np.arange(30.0).reshape(10, 3)
    labels = np.array([0] * 4 + [1] * 6)
    shuffled = shuffle_within(weights, labels, seed=3)
    assert not (shuffled == weights).all(axis=1).any()
    assert sorted(shuffled[:4, 0]) == sorted(weights[:4, 0])


def test_real_data_has_no_oracle_and_no_ceiling() -> None:
    facts = make_facts()
    uniform = np.full((len(facts.prompts), 3), 1 / 3)
    report = report_orchestrator(
        replace(facts, true_PK=None, family_P=None), uniform, loss="forward", bootstrap=BOOTSTRAP
    )
    assert report.ceilings == ()
    assert {entry.name for entry in report.predictors} == {F, UNIFORM, CONSTANT, SHUFFLED, LINEAR}
    assert all(entry.true_kl is None and entry.true_top is None for entry in report.predictors)
    assert {entry.kind for entry in report.weights} == {"split"}


def test_weights_by_family_are_means_over_the_test_prompts() -> None:
    facts = make_facts()
    assert facts.true_PK is not None
    groups = {entry.group: entry for entry in group_weights(facts, facts.true_PK) if entry.kind == "family"}
    assert set(groups) == set(FAMILIES)
    assert groups["risky"].prompts == 60
    assert groups["risky"].mean["harmless"] == pytest.approx(0.8)
    assert groups["risky"].spread["harmless"] == pytest.approx(0.0, abs=1e-9)
