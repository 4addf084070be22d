"""The part of the report about policies, with policies that give exactly what they are asked for,
or never listen."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preforch_models.conditioning import Conditioning
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.context import context_tokens
from preforch_models.policy_card import CARD_FILE, PolicyCard
from preforch_training.report.config import BestOf
from preforch_training.report.facts import Facts
from preforch_training.report.policies.comparison import report_policies
from preforch_training.report.policies.plan import ALL_TESTS, OFFLINE, ONLINE, Contender, make_plan
from preforch_training.report.policies.records import Arm, PolicyReport
from preforch_training.report.policies.tables import policy_tables
from preforch_training.report.policies.texts import measure_texts
from preforch_training.report.stage import ReportSubject, contenders
from preforch_training.report.verdicts import served_gains
from preforch_training.sampling.vllm import Generation, SampleRequest
from preforch_training.statistics.markdown import write_markdown
from preforch_training.statistics.predictors import (
    CONSTANT,
    NO_WEIGHTS,
    RECOMMENDED,
    SHUFFLED,
    TRUE,
    UNIFORM,
)
from report_world import NAMES, EchoSampler, make_facts, make_judge

POLICIES = (Contender(OFFLINE, Path("round-0")), Contender(ONLINE, Path("round-1")))
SFT = Contender("sft", Path("sft"), reads_weights=False)
STUBBORN = "0.5 0.5 0.5"
"""What the policy that reads no weights always answers: worth a half under any weights."""


def measure(
    facts: Facts, f: np.ndarray, sampler: EchoSampler, policies: Sequence[Contender] = POLICIES
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
    assert [entry.spearman.value for entry in report.control] == pytest.approx([1.0] * 24)
    swept = {(entry.policy, entry.split) for entry in report.control}
    assert swept == {
        *((OFFLINE, s) for s in ("validation", "test_topic")),
        *((ONLINE, s) for s in ("validation", "test_phrasing", "test_topic", "test_both")),
    }
    measures = {entry.measure for entry in report.control if entry.split == "test_topic"}
    assert measures == {"true", "calibrated"}


class Contrary(EchoSampler):
    """Gives less of `helpful` the more of it is asked for."""

    def sample(
        self, policy: Path, requests: Sequence[SampleRequest], **settings: Any
    ) -> list[list[Generation]]:
        turned = [{**request.weights, "helpful": -request.weights["helpful"]} for request in requests]
        asked = [replace(request, weights=weights) for request, weights in zip(requests, turned, strict=True)]
        return super().sample(policy, asked, **settings)


def test_control_is_told_of_the_objective_it_was_measured_for() -> None:
    facts = make_facts()
    found = measure(facts, true_weights(facts), Contrary({"round-0": 1.0, "round-1": 1.0})).control
    for entry in found:
        expected = -1.0 if entry.objective == "helpful" else 1.0
        assert entry.spearman.value == pytest.approx(expected), entry.objective


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
    # Weights 0.8, 0.1, 0.1 asked and obtained: 0.64 + 0.01 + 0.01. Any constant: a third, for families in
    # turn.
    assert found[RECOMMENDED, ALL_TESTS].utility.value == pytest.approx(0.66)
    assert found[TRUE, ALL_TESTS].utility.value == pytest.approx(0.66)
    assert found[UNIFORM, ALL_TESTS].utility.value == pytest.approx(1 / 3, abs=0.02)
    assert found[CONSTANT, "test_topic"].utility.value == pytest.approx(1 / 3)
    assert {entry.utility.groups for entry in report.utilities if entry.split == ALL_TESTS} == {54}


def test_recommended_weights_beat_the_constant_and_shuffled_ones_do_not(report: PolicyReport) -> None:
    found = {
        (entry.first.arm, entry.second.policy, entry.second.arm): entry.difference
        for entry in report.differences
        if entry.split == ALL_TESTS and entry.first.policy == ONLINE
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
        and entry.first.policy == ONLINE
    ]  # fmt: skip
    assert found.high < 0


def test_nothing_is_asked_twice_also_when_the_constant_answers_for_the_prompts_beyond_the_sweep() -> None:
    facts = make_facts()
    sampler = EchoSampler({"round-0": 1.0, "round-1": 1.0})
    report = measure(facts, true_weights(facts), sampler)
    assert [name for name, _ in sampler.calls] == ["round-0", "round-0", "round-1", "round-1"]
    assert report.responses == sum(count for _, count in sampler.calls)
    # Recommended weights are the true ones here: the two arms share their responses.
    assert sampler.calls[2][1] < 4 * 12 * 21 + 4 * 54
    assert sampler.calls[3][1] == 3 * (18 - 12)


def test_without_online_rounds_the_offline_policy_answers_for_every_arm() -> None:
    facts = make_facts()
    report = measure(facts, true_weights(facts), EchoSampler({"round-0": 1.0}), POLICIES[:1])
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


def measure_beside(*others: Contender, gains: dict[str, float | str]) -> tuple[PolicyReport, EchoSampler]:
    """The policies of a run where `others` come before the served one."""
    facts = make_facts()
    sampler = EchoSampler({"round-0": 0.5, "round-1": 1.0, **gains})
    return measure(facts, true_weights(facts), sampler, (*others, *POLICIES)), sampler


def test_a_policy_that_reads_no_weights_has_a_utility_and_neither_sweep_nor_control(
    report: PolicyReport,
) -> None:
    beside, sampler = measure_beside(SFT, gains={"sft": STUBBORN})
    assert (beside.served, beside.fixed) == (ONLINE, ("sft",))
    assert (beside.control, beside.sweep, beside.constant) == (report.control, report.sweep, report.constant)
    # One answer for each of the 54 test prompts, whatever the weights are.
    assert sampler.calls[0] == ("sft", 54)
    own = Arm(policy="sft", arm=NO_WEIGHTS)
    found = {entry.split: entry.utility for entry in beside.utilities if entry.arm == own}
    assert set(found) == {"test_phrasing", "test_topic", "test_both", ALL_TESTS}
    assert [entry.value for entry in found.values()] == pytest.approx([0.5] * 4)
    assert {entry.arm.arm for entry in beside.utilities if entry.arm.policy == "sft"} == {NO_WEIGHTS}
    (gain,) = [d for d in beside.differences if d.second == own and d.split == ALL_TESTS]
    assert gain.first == Arm(policy=ONLINE, arm=RECOMMENDED)
    assert gain.difference.value == pytest.approx(0.66 - 0.5)
    # Nothing else changes beside it.
    assert [entry for entry in beside.utilities if entry.arm.policy != "sft"] == list(report.utilities)
    assert [entry for entry in beside.differences if entry.second != own] == list(report.differences)


def test_every_policy_that_reads_weights_has_its_own_controls() -> None:
    facts = make_facts(families=("how-to", "how-to", "risky"))
    sampler = EchoSampler({"round-1": 1.0, "other": 0.25})
    report = measure(facts, true_weights(facts), sampler, (Contender("other", Path("other")), POLICIES[1]))
    assert report.fixed == ()
    swept = {entry.split for entry in report.control if entry.policy == "other"}
    assert swept == {"validation", "test_topic"}
    found = {
        (entry.first.arm, entry.second.arm): entry.difference.value
        for entry in report.differences
        if entry.split == ALL_TESTS and entry.first.policy == entry.second.policy == "other"
    }
    # A quarter of what is asked for is obtained, and 0.66 is it worth under the weights of its own.
    utility = {
        e.arm.arm: e.utility.value
        for e in report.utilities
        if e.arm.policy == "other" and e.split == ALL_TESTS
    }
    assert utility[RECOMMENDED] == utility[TRUE] == pytest.approx(0.66 / 4)
    assert utility[UNIFORM] == pytest.approx(1 / 12, abs=0.003)
    # The corner of the most frequent family: 0.8 on two thirds of the prompts, 0.1 on the others.
    assert utility[CONSTANT] == pytest.approx((2 * 0.8 + 0.1) / 3 / 4)
    assert found == {
        (RECOMMENDED, other): pytest.approx(utility[RECOMMENDED] - utility[other])
        for other in (CONSTANT, UNIFORM, SHUFFLED, TRUE)
    } | {(SHUFFLED, CONSTANT): pytest.approx(utility[SHUFFLED] - utility[CONSTANT])}
    # Targets and warnings are about the served policy.
    assert {gain.first.policy for gain in served_gains(report)} == {ONLINE}


def test_a_served_policy_that_reads_no_weights_is_judged_by_its_answers_alone() -> None:
    facts = make_facts()
    served = replace(SFT, name=OFFLINE)
    report = measure(facts, true_weights(facts), EchoSampler({"sft": STUBBORN}), (served,))
    assert (report.served, report.fixed) == (OFFLINE, (OFFLINE,))
    assert (report.control, report.sweep, report.differences, report.constant) == ((), (), (), None)
    assert {entry.arm for entry in report.utilities} == {Arm(policy=OFFLINE, arm=NO_WEIGHTS)}
    assert report.responses == 54
    text = write_markdown(policy_tables(report))
    assert f"anyway: {OFFLINE}." in text
    for absent in ("Spearman", "Best constant", "difference in utility", "strictly dominated"):
        assert absent not in text


def test_a_served_policy_that_reads_no_weights_is_compared_with_one_that_does() -> None:
    facts = make_facts()
    policies = (POLICIES[1], replace(SFT, name=OFFLINE))
    report = measure(facts, true_weights(facts), EchoSampler({"sft": STUBBORN, "round-1": 1.0}), policies)
    assert {entry.policy for entry in report.control} == {ONLINE}
    (gain,) = served_gains(report)
    assert (str(gain.first), str(gain.second)) == (f"{OFFLINE} {NO_WEIGHTS}", f"{ONLINE} {RECOMMENDED}")
    assert gain.difference.value == pytest.approx(0.5 - 0.66)


def test_without_truth_policies_are_compared_by_calibrated_rewards_under_equal_weights() -> None:
    facts = replace(make_facts(), true_PK=None, family_P=None)
    f = np.full((len(facts.prompts), 3), 1 / 3)
    sampler = EchoSampler({"round-0": 1.0, "round-1": 1.0, "sft": STUBBORN})
    report = measure(facts, f, sampler, (SFT, *POLICIES))
    assert (report.utilities, report.differences) == ((), ())
    found = {(entry.policy, entry.measure): entry.mean.value for entry in report.equal_weights}
    assert found == {
        ("sft", "calibrated"): pytest.approx(0.5),
        (OFFLINE, "calibrated"): pytest.approx(1 / 3),
        (ONLINE, "calibrated"): pytest.approx(1 / 3),
    }
    assert {entry.measure for entry in report.fronts} == {"calibrated"}
    assert [entry.arm.policy for entry in report.texts] == ["sft", OFFLINE, ONLINE]


def test_fronts_are_worth_what_was_computed_by_hand() -> None:
    beside, _ = measure_beside(SFT, gains={"sft": STUBBORN})
    for measure_ in ("true", "calibrated"):
        found = {front.policy: front for front in beside.fronts if front.measure == measure_}
        # Boxes of 0.2 below the grid of a step of 0.2: i + j + k <= 2 of them, in each direction.
        assert found[ONLINE].hypervolume.value == pytest.approx(10 / 125)
        assert found[OFFLINE].hypervolume.value == pytest.approx(10 / 125 / 8)
        assert found["sft"].hypervolume.value == pytest.approx(1 / 8)
        # The largest of three uniform weights is 11/18 on average.
        assert found[ONLINE].expected_utility.value == pytest.approx(11 / 18, abs=0.02)
        assert found["sft"].expected_utility.value == pytest.approx(0.5)
        # All of them together reach 1 of one objective, and a half of each.
        assert {name: front.epsilon.value for name, front in found.items()} == {
            ONLINE: pytest.approx(0.3),
            OFFLINE: pytest.approx(0.5),
            "sft": pytest.approx(0.5),
        }
        assert [found[name].points for name in ("sft", ONLINE)] == [1, 21]


def test_a_policy_on_the_way_is_judged_as_it_was() -> None:
    served = replace(POLICIES[1], snapshots={0: Path("sft"), 640: Path("other")})
    facts = make_facts()
    sampler = EchoSampler({"sft": STUBBORN, "other": 0.5, "round-1": 1.0})
    report = measure(facts, true_weights(facts), sampler, (served,))
    assert [(point.policy, point.samples) for point in report.curves] == [(ONLINE, 0), (ONLINE, 640)]
    first, last = report.curves
    assert [reward.value for reward in first.rewards.values()] == pytest.approx([0.5] * 3)
    assert first.learned.value == pytest.approx(0.5)
    # Half of the weights, worth 0.66 under themselves.
    assert last.utility is not None
    assert (last.learned.value, last.utility.value) == pytest.approx((0.33, 0.33))
    assert (first.kl, report.texts[0].kl) == (None, None)


def test_any_two_policies_can_be_compared() -> None:
    facts = make_facts()
    sampler = EchoSampler({"sft": STUBBORN, "other": 0.25, "round-1": 1.0})
    policies = (SFT, Contender("other", Path("other")), POLICIES[1])
    f = true_weights(facts)
    plan = make_plan(
        facts, f, np.ones(len(f), dtype=bool), step=0.5, sweep_prompts=12, utility_prompts=18, seed=4
    )
    report = report_policies(policies, sampler, plan, make_judge(facts), pairs=[("other", "sft")])
    between = ("other", "sft")
    (found,) = [
        d for d in report.differences if d.split == ALL_TESTS and (d.first.policy, d.second.policy) == between
    ]
    assert found.difference.value == pytest.approx(0.66 / 4 - 0.5)


def write_card(folder: Path, conditioning: Conditioning) -> Path:
    """A policy folder with nothing but its card."""
    folder.mkdir(parents=True)
    context = conditioning.context_format(NAMES)
    card = PolicyCard(
        objectives=NAMES,
        conditioning=conditioning,
        control_strings=tuple(context_tokens(context)) if context else (),
        max_model_len=64,
        revision="r",
    )
    (folder / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
    return folder


def test_contenders_are_the_ends_of_all_policies_and_both_ends_of_the_served_one(tmp_path: Path) -> None:
    rounds = [write_card(tmp_path / f"wic-{n}", ContextConditioning(encoding="levels")) for n in range(3)]
    only = write_card(tmp_path / "sft-0", FixedConditioning())
    subject = ReportSubject(
        source="files",
        overrides=(),
        studied=False,
        policies={"wic": rounds, "sft": [only]},
        served="wic",
        sampling=None,
    )
    found = contenders(subject)
    assert [(c.name, c.folder, c.reads_weights) for c in found] == [
        ("sft", only, False),
        (OFFLINE, rounds[0], True),
        (ONLINE, rounds[2], True),
    ]
    found = contenders(replace(subject, served="sft"))
    assert [(c.name, c.folder, c.reads_weights) for c in found] == [
        ("wic", rounds[2], True),
        ("sft", only, False),
    ]
    best, *others = contenders(subject, BestOf(policy="sft", samples=4))
    assert (best.name, best.folder, best.best_of) == ("best of 4 of sft", only, 4)
    assert best.own_arm == RECOMMENDED
    assert others == contenders(subject)


class SpellingSampler(EchoSampler):
    """Answers every request with all its weights on one objective, another one each time."""

    def sample(self, policy: Path, requests: Sequence[SampleRequest], **_: Any) -> list[list[Generation]]:
        self.calls.append((policy.name, len(requests)))
        texts = ["1.0 0.0 0.0", "0.0 1.0 0.0", "0.0 0.0 1.0", "0.2 0.2 0.2"]
        return [
            [Generation((1,), text, finished=i < 3) for i, text in enumerate(texts[: request.n])]
            for request in requests
        ]


def test_best_of_n_takes_what_the_weights_like_best_of_the_same_samples() -> None:
    facts = make_facts()
    best = Contender("best of 4", Path("sft"), best_of=4)
    sampler = SpellingSampler({})
    report = measure(facts, true_weights(facts), sampler, [best, SFT])
    # Each prompt once, whatever it is asked with, and again what only the best constant asks for.
    (_, requests), (_, again), *_ = sampler.calls
    assert (requests, again) == (3 * 18 + 12, 3 * 18 - 12)
    utilities = {(u.arm.arm, u.split): u.utility.value for u in report.utilities if u.arm.policy == best.name}
    assert utilities[RECOMMENDED, ALL_TESTS] == pytest.approx(0.8)
    assert utilities[TRUE, ALL_TESTS] == pytest.approx(0.8)
    assert utilities[SHUFFLED, ALL_TESTS] < 0.6
    # The best of four under one corner of the simplex, right for a third of the prompts.
    assert utilities[CONSTANT, ALL_TESTS] == pytest.approx((0.8 + 2 * 0.1) / 3)
    # Under equal weights the first of three that are alike, which is a third of the families' best.
    assert utilities[UNIFORM, ALL_TESTS] == pytest.approx(1 / 3, abs=0.05)
    control = [c.spearman.value for c in report.control if c.policy == best.name and c.measure == "true"]
    assert len(control) == 6  # on validation and on new topics
    assert min(control) > 0.8
    assert report.unfinished == 0


def test_best_of_n_stays_the_best_under_its_best_constant() -> None:
    facts = make_facts(families=("risky", "risky", "how-to"))
    best = Contender("best of 4", Path("sft"), best_of=4)
    report = measure(facts, true_weights(facts), SpellingSampler({}), [best, SFT])
    (found,) = [
        u.utility.value
        for u in report.utilities
        if u.arm == Arm(policy=best.name, arm=CONSTANT) and u.split == ALL_TESTS
    ]
    # The second answer, all harmless: 0.8 on two thirds of the prompts. The first is all helpful.
    assert found == pytest.approx((2 * 0.8 + 0.1) / 3)


def test_answers_are_measured_as_texts() -> None:
    found = measure_texts(SFT, ["A b. A b.", "A b. A b.", "C d e f.", "One."], kl=None)
    assert (found.responses, found.distinct) == (4, 0.75)
    assert found.repeated == 0.5
    assert found.words == pytest.approx(13 / 4)
    # "A b. A", "b. A b." twice each, "C d e", "d e f.": four of six.
    assert found.distinct_grams == pytest.approx(4 / 6)
    assert str(found.arm) == f"sft {NO_WEIGHTS}"


def test_the_report_shows_the_texts_of_every_policy(report: PolicyReport) -> None:
    assert [entry.arm.policy for entry in report.texts] == [OFFLINE, ONLINE]
    assert "distinct 3-grams" in write_markdown(policy_tables(report))
