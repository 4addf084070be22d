"""The plots of the page, drawn in the browser by Bokeh, with the numbers under the pointer.

In:  a `Report` and training curves. Out: `Plot`s: data for Bokeh's own script, no code.
"""

from collections.abc import Mapping, Sequence

from bokeh.models import Span

from preforch_training.report.costs import Curve
from preforch_training.report.page.learning import learning_plot
from preforch_training.report.page.panels import (
    Dot,
    Plot,
    add_line,
    bars_panel,
    dot,
    dots_panel,
    look,
    panel,
    side_by_side,
)
from preforch_training.report.page.sweep import looks_of, sweep_plots
from preforch_training.report.policies.plan import ALL_TESTS
from preforch_training.report.policies.records import PolicyReport
from preforch_training.report.records import OrchestratorReport, Report, StageCost
from preforch_training.statistics.predictors import CONSTANT, SHUFFLED, UNIFORM, F
from preforch_training.study.records import GapFindings


def make_plots(report: Report, curves: Mapping[str, Mapping[str, Curve]]) -> list[Plot]:
    """Draw what the report has; the policies come first."""
    plots = policy_plots(report.policy, report.objectives) if report.policy else []
    plots.append(weights_plot(report.orchestrator, report.objectives))
    findings = report.study.gap.findings if report.study and report.study.gap else None
    if findings is not None:
        plots.append(gap_plot(findings))
    if curves:
        plots.append(curves_plot(curves))
    return [*plots, stages_plot(report.stages)]


def policy_plots(policy: PolicyReport, objectives: Sequence[str]) -> list[Plot]:
    """Utilities and differences where the truth is known, the sweep where a policy reads weights."""
    looks = looks_of(policy)
    utilities = [
        dot(str(entry.arm), entry.utility, looks[entry.arm.policy])
        for entry in sorted(policy.utilities, key=lambda entry: -entry.utility.value)
        if entry.split == ALL_TESTS
    ]
    # What other policies gain by their weights has its place in the tables.
    whole = [
        entry
        for entry in policy.differences
        if entry.split == ALL_TESTS
        and (entry.first.policy == policy.served or entry.first.policy != entry.second.policy)
    ]
    plots = []
    if utilities:
        reading = "Under the true weights, on all test prompts together; lines are 95% intervals."
        plots.append(Plot("Utility", reading, dots_panel(utilities, "utility")))
    if whole:
        first = whole[0].first
        reading = (
            f"Of {first}, minus that of each other one, on the same prompts. An interval that crosses 0 "
            "decides nothing."
        )
        # The first side is nearly always the same: without it the names leave room for the plot.
        differences = [
            dot(
                str(entry.second) if entry.first == first else f"{entry.first} - {entry.second}",
                entry.difference,
                looks[entry.second.policy],
            )
            for entry in whole
        ]
        drawn = dots_panel(differences, "difference in utility")
        drawn.add_layout(Span(location=0, dimension="height", line_color="gray", line_dash="dashed"))
        plots.append(Plot("Differences in utility", reading, drawn))
    if policy.curves:
        plots.append(learning_plot(policy.curves))
    return plots + (sweep_plots(policy, objectives, looks) if policy.sweep else [])


def weights_plot(orchestrator: OrchestratorReport, objectives: Sequence[str]) -> Plot:
    """Mean weights with their spread by family, by split where there is none; mean true weights."""
    groups = [g for g in orchestrator.weights if g.kind == "family"] or list(orchestrator.weights)
    dots = [
        Dot(
            (group.group, name),
            group.mean[name],
            group.mean[name] - group.spread[name],
            group.mean[name] + group.spread[name],
            look(number),
            group.prompts,
        )
        for group in groups
        for number, name in enumerate(objectives)
    ]
    drawn = dots_panel(dots, "weight")
    known = [
        ((group.group, name), value) for group in groups for name, value in (group.true_mean or {}).items()
    ]
    if known:
        drawn.scatter(
            [value for _, value in known],
            [place for place, _ in known],
            marker="diamond",
            size=9,
            fill_color="white",
            line_color="black",
        )
    reading = (
        "Mean over held-out prompts of a kind, and one standard deviation to either side. "
        "A white diamond is the mean true weight."
    )
    return Plot("Recommended weights", reading, drawn)


def gap_plot(findings: GapFindings) -> Plot:
    """Alignment gap by number of training prompts, beside the gaps that do not depend on it."""
    counts, gaps = [point.prompts for point in findings.curve], [point.gap for point in findings.curve]
    drawn = panel(x_axis_label="training prompts", y_axis_label="alignment gap")
    drawn.varea(counts, [gap.low for gap in gaps], [gap.high for gap in gaps], fill_alpha=0.2)
    add_line(drawn, counts, [gap.value for gap in gaps], F, 0)
    rows = {row.name: row.gap.value for row in findings.table}
    for number, name in enumerate((CONSTANT, UNIFORM, SHUFFLED), 1):
        add_line(drawn, [counts[0], counts[-1]], [rows[name]] * 2, name, number)
    reading = (
        "Of the orchestrator's weights, with its 95% interval, beside weights that are the same for all."
    )
    return Plot("Alignment gap", f"{reading} Lower is better.", drawn)


def curves_plot(curves: Mapping[str, Mapping[str, Curve]]) -> Plot:
    """Losses by step, a panel for each stage."""
    panels = []
    for stage, lines in curves.items():
        drawn = panel(title=stage, x_axis_label="step", y_axis_label="loss")
        for number, (name, curve) in enumerate(lines.items()):
            add_line(drawn, [step for step, _ in curve], [value for _, value in curve], name, number)
        panels.append(drawn)
    return Plot("Training", "Losses by step, in training and on validation data.", side_by_side(panels))


def stages_plot(stages: Sequence[StageCost]) -> Plot:
    """Seconds and peak memory by stage."""
    names = [stage.stage for stage in stages]
    panels = [
        bars_panel(names, [stage.seconds for stage in stages], "seconds"),
        bars_panel(names, [stage.peak_memory_mib for stage in stages], "peak memory, MiB"),
    ]
    return Plot("Time and memory", "Of every stage before this report.", side_by_side(panels))
