"""Verdicts, warnings, tables, plots, costs, and the summary over seeds."""

import json
from pathlib import Path

import pytest
from preforch_models.manifest import ArtifactError, Manifest, write_manifest
from preforch_models.run_folder import RunInfo, write_run_info
from preforch_training.report.costs import stage_costs, training_curves
from preforch_training.report.plots import draw_plots, pareto_plot
from preforch_training.report.policies.plan import OFFLINE, ONLINE, Contender
from preforch_training.report.records import Report, Verdict
from preforch_training.report.tables import render
from preforch_training.seeds import summarise
from report_samples import CURVES, POLICIES, make_report, make_study, shuffled_weights, true_weights


@pytest.fixture(scope="module")
def good() -> Report:
    return make_report(true_weights)


def test_a_perfect_run_reaches_its_targets_and_gets_no_warning(good: Report) -> None:
    missed = {verdict.name for verdict in good.verdicts if not verdict.reached}
    # With families in turn, weights of another prompt are as good as any constant.
    assert missed <= {"utility, online shuffled f - online best constant"}
    assert good.warnings == ()
    names = [verdict.name for verdict in good.verdicts]
    for part in (
        "share of the oracle's ceiling, test_both",
        "control of humor, online, test_topic",
        "torch and ONNX",
    ):
        assert any(part in name for name in names)


def test_orchestration_that_does_not_beat_a_constant_is_said(good: Report) -> None:
    report = make_report(shuffled_weights)
    assert any("do not beat the best constant" in warning for warning in report.warnings)
    assert any("no better than a constant" in warning for warning in report.warnings)
    by_name = {verdict.name: verdict for verdict in report.verdicts}
    gain = by_name["utility, online recommended - online best constant"]
    assert not gain.reached
    assert "**no**" in render(report, {})
    assert "do not beat the best constant" not in render(good, {})


def test_report_json_is_strict_json_and_reads_back(good: Report) -> None:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} in report.json")

    text = good.model_dump_json()
    json.loads(text, parse_constant=refuse)
    assert Report.model_validate_json(text) == good


def test_markdown_has_every_part_and_leaves_the_policy_out_where_there_is_none(good: Report) -> None:
    text = render(good, {"Control": "control.png"})
    parts = (
        "Targets",
        "Reward models",
        "Orchestrator",
        "Confidence",
        "Stability",
        "Policy",
        "Time and memory",
    )
    assert "| wic | 1 | 8000 | 0.62 | 0.37 | 0.9 | 1.4 | 0.51 |" in text
    assert "| wic | 1 | helpful -0.12 (0.41), harmless 0.00 (0.20), humor 0.30 (0.10) | 0.23 |" in text
    assert "| typos | 9 | 0.020 [0.010, 0.030] | 0.900 [0.890, 0.910] |  |" in text
    for part in ("control.png", *(f"## {title}" for title in parts)):
        assert part in text
    without = make_report(true_weights, policies=())
    assert "## Policy" not in render(without, {})
    assert "## Online rounds" not in render(without, {})
    assert not any("utility" in verdict.name or "control" in verdict.name for verdict in without.verdicts)


def test_a_study_is_a_part_of_the_markdown_the_most_likely_choice_first(good: Report) -> None:
    assert "## Study" not in render(good, {})
    study = make_study()
    text = render(good.model_copy(update={"study": study}), {}).partition("## Study")[2]
    for line in (
        "* orchestration does not beat the best constant",
        "Cannot be fitted here, because margins are perfect: log_odds.",
        "| 0.5 | 0.600 [0.500, 0.700] | 0.600 [0.500, 0.700] | 0.600 [0.500, 0.700] |",
        "| helpful | 1.00 | -0.73 |",
        "| helpful | 0.55 -> 0.50, 0.90 -> 1.00 |",
        "| 0.5 | 0.600 [0.500, 0.700] | 0.600 [0.500, 0.700] | 0.600 [0.500, 0.700] |",
        f"`recommended`: {study.recommended}",
        "| uniform | 0.600 [0.500, 0.700] | 0.600 [0.500, 0.700] |  |",
        "| helpful | 0.600 [0.500, 0.700] | pair-7 (-2.50) |",
    ):
        assert line in text
    alternatives = text.partition("### Alternatives")[2].partition("###")[0]
    assert 0 < alternatives.index("tau 0.1") < alternatives.index("tau 0.5")
    single = text.partition("### Preferences from one objective alone")[2].partition("###")[0].splitlines()
    assert [line.rsplit("| ", 1)[1] for line in single if "tau" in line] == ["yes |", "**no** |"]
    for heading in ("### Weights by category", "### Whole categories held out", "### Judged on other data"):
        assert heading not in text


def test_plots_are_written_and_named(good: Report, tmp_path: Path) -> None:
    images = draw_plots(good, CURVES, tmp_path)
    assert set(images.values()) == {"weights.png", "stages.png", "training.png", "pareto.png", "control.png"}
    for name in images.values():
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("served", ["wic", "sft"])
def test_a_run_with_a_policy_that_reads_no_weights_is_reported_whole(served: str, tmp_path: Path) -> None:
    sft = Contender("sft", Path("sft"), reads_weights=False)
    policies = (
        (sft, Contender("other", Path("other")), *POLICIES)
        if served == "wic"
        else (Contender(OFFLINE, Path("sft"), reads_weights=False),)
    )
    report = make_report(true_weights, policies=policies)
    names = [verdict.name for verdict in report.verdicts]
    images = draw_plots(report, CURVES, tmp_path)
    text = render(report, images)
    said = [warning for warning in report.warnings if "reads no weights" in warning]
    assert "Read no weights, and are judged by what they answer anyway" in text
    if served == "wic":
        assert "control of humor, online, test_topic" in names
        # Three targets of the served policy against itself, one against its first round; none against others.
        assert len([name for name in names if name.startswith("utility, ")]) == 4
        assert said == []
        assert "sft no weights" in text
        assert "pareto.png" in images.values()
    else:
        assert not [name for name in names if name.startswith(("control", "utility"))]
        assert len(said) == 1
        assert set(images.values()) == {"weights.png", "stages.png", "training.png"}
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_every_swept_policy_is_drawn(good: Report) -> None:
    assert good.policy is not None
    third = [point.model_copy(update={"policy": "third"}) for point in good.policy.sweep[:5]]
    policy = good.policy.model_copy(update={"sweep": (*good.policy.sweep, *third)})
    (axis, *_) = pareto_plot(policy, good.objectives).axes
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [OFFLINE, ONLINE, "third"]


def test_costs_come_from_manifests_and_curves_from_metrics(tmp_path: Path) -> None:
    lines = [
        {"step": 10, "loss": 0.5, "grad_norm": 1.0},
        {"step": 20, "eval_loss": 0.4},
        {"step": 20, "loss": 0.3},
    ]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    write_manifest(tmp_path, Manifest(kind="orchestrator", seconds=12.5, peak_memory_mib=300.0))
    (cost,) = stage_costs({"orchestrator": tmp_path})
    assert (cost.stage, cost.seconds, cost.peak_memory_mib) == ("orchestrator", 12.5, 300.0)
    curves = training_curves({"orchestrator": tmp_path, "data": tmp_path / "absent"})
    assert curves == {"orchestrator": {"loss": [(10, 0.5), (20, 0.3)], "eval_loss": [(20, 0.4)]}}


def write_run(folder: Path, report: Report) -> Path:
    """A run folder with nothing but its report."""
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "report.json").write_text(report.model_dump_json(), encoding="utf-8")
    write_manifest(folder / "report", Manifest(kind="report"))
    write_run_info(folder, RunInfo())
    return folder


def test_seeds_are_summarised_by_mean_and_t_interval(good: Report, tmp_path: Path) -> None:
    stage = good.stages[0]
    # Another reward model is the worst in each run.
    worst = {
        seed: Verdict(name=f"true order, worst (a{seed}), test", value=0.9, target=">= 0.8", reached=True)
        for seed in (1, 2, 3)
    }
    runs = [
        good.model_copy(
            update={
                "seed": seed,
                "stages": (stage.model_copy(update={"seconds": seconds}),),
                "verdicts": (*good.verdicts, worst[seed]),
            }
        )
        for seed, seconds in ((1, 10.0), (2, 12.0), (3, 14.0))
    ]
    text = summarise([write_run(tmp_path / str(run.seed), run) for run in runs])
    # Mean 12, standard deviation 2, t(0.975, 2) = 4.303: 12 +- 4.97.
    assert "| seconds, all stages | 12 | [7.03, 17] | 3 | 10, 12, 14 |" in text
    assert "| true order, worst, test | 0.9 | [0.9, 0.9] | 3 | 0.9, 0.9, 0.9 |" in text
    assert "seeds 1, 2, 3" in text
    assert "share of the oracle's ceiling, test_topic" in text


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(good: Report, tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", good)
    other = good.model_copy(update={"seed": 1, "preset": "paper"})
    with pytest.raises(ValueError, match="preset is paper"):
        summarise([first, write_run(tmp_path / "b", other)])
    with pytest.raises(ValueError, match="seeds must differ"):
        summarise([first, write_run(tmp_path / "c", good)])
    with pytest.raises(ValueError, match="at least 2 runs"):
        summarise([first])


def test_a_folder_without_a_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a run"):
        summarise([tmp_path, tmp_path])
    write_run_info(tmp_path, RunInfo())
    with pytest.raises(ArtifactError, match="no manifest"):
        summarise([tmp_path, tmp_path])
