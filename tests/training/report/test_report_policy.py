"""The part of the report about policies, with a policy that gives exactly what it is asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from preforch_training.report.facts import Facts
from preforch_training.report.policy import (
    ALL_TESTS,
    OFFLINE,
    ONLINE,
    make_plan,
    report_policies,
)
from preforch_training.report.records import PolicyReport
from preforch_training.statistics.predictors import CONSTANT, RECOMMENDED, SHUFFLED, TRUE, UNIFORM
from report_world import NAMES, EchoSampler, make_facts, make_judge

POLICIES = {OFFLINE: Path("round-0"), ONLINE: Path("round-1")}


def measure(
    facts: Facts, f: np.ndarray, sampler: EchoSampler, policies: dict[str, Path] = POLICIES
) -> PolicyReport:
    plan = make_plan(
        facts, f, np.ones(len(f), dtype=bool), step=0.2, sweep_prompts=12, utility_prompts=18, seed=4
    )
    return report_policies(policies, sampler, plan, make_judge(facts))


def true_weights(facts: Facts) -> np.ndarray:
    assert facts.true_PK is not None
    return facts.true_PK


@pytest.fixture(scope="module")
def report() -> PolicyReport:
    facts = make_facts()
    return measure(facts, true_weights(facts), EchoSampler({"round-0": 0.5, "round-1": 1.0}))


def test_control_of_a_linear_policy_is_1_on_every_swept_split(report: PolicyReport) -> None:
    assert [entry.spearman.value for entry in report.control] == pytest.approx([1.0] * 21)
    swept = {(entry.policy, entry.split) for entry in report.control}
    assert swept == {
        (OFFLINE, "test_topic"), *((ONLINE, s) for s in ("validation", "test_phrasing", "test_topic", "test_both")),
    }  # fmt: skip
    measures = {entry.measure for entry in report.control if entry.split == "test_topic"}
    assert measures == {"true", "calibrated"}


def test_the_sweep_of_a_linear_policy_gives_back_the_weights_and_nothing_is_dominated(
    report: PolicyReport,
) -> None:
    points = [point for point in report.sweep if point.policy == ONLINE and point.measure == "true"]
    assert len(points) == 21
    for point in points:
        assert {name: reward.value for name, reward in point.rewards.items()} == pytest.approx(point.weights)
        assert not point.dominated


def test_utilities_are_those_computed_by_hand(report: PolicyReport) -> None:
    found = {(entry.arm.arm, entry.split): entry for entry in report.utilities if entry.arm.policy == ONLINE}
    # Weights 0.8, 0.1, 0.1 asked and obtained: 0.64 + 0.01 + 0.01. Any constant: a third, for families in turn.
    assert found[RECOMMENDED, ALL_TESTS].utility.value == pytest.approx(0.66)
    assert found[TRUE, ALL_TESTS].utility.value == pytest.approx(0.66)
    assert found[UNIFORM, ALL_TESTS].utility.value == pytest.approx(1 / 3, abs=0.02)
    assert found[CONSTANT, "test_topic"].utility.value == pytest.approx(1 / 3)
    assert (found[RECOMMENDED, ALL_TESTS].utility.groups, found[CONSTANT, ALL_TESTS].utility.groups) == (
        54,
        36,
    )


def test_recommended_weights_beat_the_constant_and_shuffled_ones_do_not(report: PolicyReport) -> None:
    found = {
        (entry.first.arm, entry.second.policy, entry.second.arm): entry.difference
        for entry in report.differences
        if entry.split == ALL_TESTS
    }
    assert found[RECOMMENDED, ONLINE, CONSTANT].value == pytest.approx(0.66 - 1 / 3)
    assert found[RECOMMENDED, ONLINE, CONSTANT].low > 0
    assert found[RECOMMENDED, ONLINE, SHUFFLED].low > 0
    assert found[SHUFFLED, ONLINE, CONSTANT].value < 0.1
    assert found[RECOMMENDED, ONLINE, TRUE].value == pytest.approx(0.0)
    assert found[RECOMMENDED, OFFLINE, RECOMMENDED].value == pytest.approx(0.33)


def test_the_best_constant_is_the_best_point_of_the_grid_on_validation_prompts() -> None:
    facts = make_facts(families=("how-to", "how-to", "risky"))
    report = measure(facts, true_weights(facts), EchoSampler({"round-0": 1.0, "round-1": 1.0}))
    # Utility is linear in what is asked, so a corner wins: that of the most frequent family.
    assert report.constant == {"helpful": 1.0, "harmless": 0.0, "humor": 0.0}


def test_shuffled_weights_lose_against_a_constant_where_families_are_uneven() -> None:
    facts = make_facts(families=("how-to", "how-to", "risky"))
    report = measure(facts, true_weights(facts), EchoSampler({"round-0": 1.0, "round-1": 1.0}))
    (found,) = [
        entry.difference for entry in report.differences
        if (entry.first.arm, entry.second.arm, entry.split) == (SHUFFLED, CONSTANT, ALL_TESTS)
    ]  # fmt: skip
    assert found.high < 0


def test_every_policy_is_sampled_once_and_nothing_is_asked_twice() -> None:
    facts = make_facts()
    sampler = EchoSampler({"round-0": 1.0, "round-1": 1.0})
    report = measure(facts, true_weights(facts), sampler)
    assert [name for name, _ in sampler.calls] == ["round-0", "round-1"]
    assert report.responses == sum(count for _, count in sampler.calls)
    # Recommended weights are the true ones here: the two arms share their responses.
    assert sampler.calls[1][1] < 4 * 12 * 21 + 4 * 54


def test_without_online_rounds_the_offline_policy_answers_for_every_arm() -> None:
    facts = make_facts()
    report = measure(facts, true_weights(facts), EchoSampler({"round-0": 1.0}), {OFFLINE: Path("round-0")})
    assert {entry.arm.policy for entry in report.utilities} == {OFFLINE}
    assert {entry.arm.arm for entry in report.utilities} == {RECOMMENDED, UNIFORM, SHUFFLED, TRUE, CONSTANT}
    assert {entry.second.policy for entry in report.differences} == {OFFLINE}


def test_real_data_is_swept_on_one_split_by_calibrated_rewards() -> None:
    facts = replace(make_facts(), true_PK=None, family_P=None)
    f = np.full((len(facts.prompts), 3), 1 / 3)
    report = measure(facts, f, EchoSampler({"round-0": 1.0, "round-1": 1.0}))
    assert {(entry.measure, entry.split) for entry in report.control} == {("calibrated", "test_topic")}
    assert report.utilities == ()
    assert report.differences == ()
    assert report.constant is None
    assert {entry.objective for entry in report.control} == set(NAMES)
