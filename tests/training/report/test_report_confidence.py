"""The part of the report about confidence: foreign prompts are told apart,
and the report says where they are not."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from preforch_models.calibration import Calibration, Constants
from preforch_models.orchestrator_model import OrchestratorModel
from preforch_training.config import RunConfig
from preforch_training.orchestrator.confidence.foreign_texts import vocabulary_words
from preforch_training.orchestrator.prediction import vectors_of
from preforch_training.records import Prompt, read_records
from preforch_training.report.facts import Facts
from preforch_training.report.orchestrator import report_orchestrator
from preforch_training.report.records import ConfidenceReport, HeldOutPrompts, RewardReport, UnlikePrompts
from preforch_training.report.robustness.confidence import (
    TEST_PROMPTS,
    UNLIKE_PROMPTS,
    report_confidence,
)
from preforch_training.report.tables import confidence_table
from preforch_training.report.verdicts import find_warnings, judge_run
from preforch_training.run import Run
from preforch_training.statistics.bootstrap import Bootstrap, Interval
from preforch_training.statistics.markdown import write_markdown
from report_world import BOOTSTRAP, NAMES, make_facts
from small_world import PLACES, make_prompt
from transformers import AutoTokenizer

KINDS = ["code", "languages", "noise", "long"]


def facts_of(run: Run) -> Facts:
    """The run's prompts; nothing else is read."""
    prompts, none = read_records(run.data / "prompts.jsonl", Prompt), np.zeros(0)
    return Facts(NAMES, prompts, prompt_N=none, margin_NK=none, target_NK=none, true_PK=None, family_P=None)


@pytest.fixture(scope="module")
def shrunk(toy_run: tuple[Run, RunConfig]) -> ConfidenceReport:
    """The toy run's."""
    return report_confidence(toy_run[0].orchestrator, facts_of(toy_run[0]), bootstrap=BOOTSTRAP)


def test_foreign_prompts_are_told_from_test_prompts_and_keep_less(
    shrunk: ConfidenceReport, toy_run: tuple[Run, RunConfig]
) -> None:
    facts = facts_of(toy_run[0])
    assert (shrunk.mode, [held.split for held in shrunk.held_out]) == ("shrink", ["test"])
    assert shrunk.held_out[0].prompts == (facts.split_P == "test").sum()
    assert [entry.kind for entry in shrunk.unlike] == KINDS
    assert shrunk.held_out[0].kept is not None
    assert shrunk.held_out[0].kept > 0.9
    assert shrunk.held_out[0].median is not None
    assert shrunk.held_out[0].median > 0.6
    for entry in shrunk.unlike[:3]:
        assert entry.prompts == UNLIKE_PROMPTS
        assert entry.median is not None
        assert entry.confidence == entry.served
        assert entry.served.low > 0.9
        assert entry.median < 0.2
        assert entry.kept is not None
        assert entry.kept < 0.5


def test_what_is_kept_is_what_the_served_weights_show(
    shrunk: ConfidenceReport, toy_run: tuple[Run, RunConfig]
) -> None:
    """g from served weights = g f(x) + (1 - g) fallback, of all test prompts."""
    model = OrchestratorModel.from_pretrained(toy_run[0].orchestrator).eval()
    tokenizer = AutoTokenizer.from_pretrained(toy_run[0].orchestrator)
    texts = [prompt.text for prompt in facts_of(toy_run[0]).prompts if prompt.split == "test"]
    with torch.inference_mode():
        pooled = torch.from_numpy(vectors_of(model, tokenizer, texts))
        served, plain = model.serve_pooled(pooled)[0], model.log_weights(pooled).exp()
    assert model.familiarity is not None
    fallback = model.familiarity.fallback_K
    share = ((served - fallback)[:, 0] / (plain - fallback)[:, 0]).numpy()
    held = shrunk.held_out[0]
    assert held.kept == pytest.approx(share.mean(), abs=1e-4)
    assert held.shrunk == pytest.approx((share < 1 - 1e-5).mean(), abs=0.05)


@pytest.mark.parametrize("mode", ["off", "report"])
def test_without_shrinkage_nothing_is_said_to_be_kept(
    toy_run: tuple[Run, RunConfig], tmp_path: Path, mode: Literal["off", "report"]
) -> None:
    folder = tmp_path / mode
    shutil.copytree(toy_run[0].orchestrator, folder)
    model = OrchestratorModel.from_pretrained(folder)
    model.config.confidence = mode
    model.familiarity = None if mode == "off" else model.familiarity
    model.save_pretrained(folder)
    report = report_confidence(folder, facts_of(toy_run[0]), bootstrap=BOOTSTRAP)
    assert report.mode == mode
    assert (report.held_out[0].kept, report.held_out[0].shrunk) == (None, None)
    for entry in report.unlike:
        assert entry.kept is None
        assert (entry.median is None, entry.confidence is None) == (mode == "off", mode == "off")
        assert entry.served == (entry.certainty if mode == "off" else entry.confidence)
    assert f"Confidence is `{mode}`" in write_markdown(confidence_table(report))


def test_validation_prompts_stand_in_for_test_prompts_and_many_are_drawn_from(
    toy_run: tuple[Run, RunConfig],
) -> None:
    facts = facts_of(toy_run[0])
    many = [make_prompt(f"joke about {place} {n}", split="validation") for place in PLACES for n in range(30)]
    small = Bootstrap(seed=1, replicates=100)
    report = report_confidence(toy_run[0].orchestrator, replace(facts, prompts=many), bootstrap=small)
    assert [(held.split, held.prompts) for held in report.held_out] == [("validation", TEST_PROMPTS)]
    assert report == report_confidence(toy_run[0].orchestrator, replace(facts, prompts=many), bootstrap=small)


def test_words_are_words_of_the_vocabulary(toy_run: tuple[Run, RunConfig]) -> None:
    words = vocabulary_words(AutoTokenizer.from_pretrained(toy_run[0].orchestrator), seed=0)
    assert set(PLACES) < set(words)
    assert "user:" not in words
    assert not any("[" in word for word in words)


def report_of(*, high: float, shrunk_share: float) -> ConfidenceReport:
    """All kinds separated but the last, whose interval ends at `high`."""
    good = Interval(value=0.95, low=0.9, high=1.0, groups=90)
    last = Interval(value=0.5, low=0.4, high=high, groups=90)
    return ConfidenceReport(
        mode="shrink",
        held_out=(HeldOutPrompts(split="test_topic", prompts=30, median=0.9, kept=0.8, shrunk=shrunk_share),),
        unlike=tuple(
            UnlikePrompts(kind=kind, prompts=60, certainty=last, confidence=found, median=0.1, kept=0.25)
            for kind, found in zip(KINDS, [good, good, good, last], strict=True)
        ),
    )


def warnings_of(confidence: ConfidenceReport) -> list[str]:
    facts = make_facts()
    assert facts.true_PK is not None
    calibration = Calibration(method="none", constants={name: Constants() for name in NAMES})
    rewards = RewardReport(accuracies=(), correlations={}, calibration=calibration)
    orchestrator = report_orchestrator(facts, facts.true_PK, loss="forward", bootstrap=BOOTSTRAP)
    return find_warnings(rewards, orchestrator, None, confidence)


def test_a_kind_that_is_not_told_apart_is_named_and_so_are_held_out_prompts_that_shrink() -> None:
    [warning] = warnings_of(report_of(high=0.59, shrunk_share=0.1))
    assert "'long'" in warning
    assert "once they are cut" in warning
    assert warnings_of(report_of(high=0.61, shrunk_share=0.1)) == []
    [warning] = warnings_of(report_of(high=0.61, shrunk_share=0.3))
    assert warning.startswith("test_topic: 30% of the prompts are taken for unfamiliar")


def test_the_table_has_every_split_and_kind() -> None:
    text = write_markdown(confidence_table(report_of(high=0.59, shrunk_share=0.3)))
    assert "| test_topic | 30 | 0.9 |  |  | 0.8 | 0.3 |" in text
    assert "| long | 60 | 0.1 | 0.500 [0.400, 0.590] | 0.500 [0.400, 0.590] | 0.25 |  |" in text


def test_targets_are_set_to_both_sides_where_the_confidence_knows_them() -> None:
    facts = make_facts()
    assert facts.true_PK is not None
    calibration = Calibration(method="none", constants={name: Constants() for name in NAMES})
    rewards = RewardReport(accuracies=(), correlations={}, calibration=calibration)
    orchestrator = report_orchestrator(facts, facts.true_PK, loss="forward", bootstrap=BOOTSTRAP)

    def judged(confidence: ConfidenceReport) -> dict[str, bool]:
        verdicts = judge_run(rewards, orchestrator, None, confidence, 0.0)
        prefix = "median confidence, "
        return {v.name.removeprefix(prefix): v.reached for v in verdicts if v.name.startswith(prefix)}

    good = report_of(high=0.59, shrunk_share=0.3)
    assert judged(good) == dict.fromkeys(["test_topic", "code", "languages", "noise"], True)
    [held_out], [code, *others] = good.held_out, good.unlike
    low, high = held_out.model_copy(update={"median": 0.59}), code.model_copy(update={"median": 0.21})
    missed = good.model_copy(update={"held_out": (low,), "unlike": (high, *others)})
    assert judged(missed) == {"test_topic": False, "code": False, "languages": True, "noise": True}
    unknown = [held_out.model_copy(update={"median": None}), code.model_copy(update={"median": None})]
    assert judged(good.model_copy(update={"held_out": unknown[:1], "unlike": unknown[1:]})) == {}
