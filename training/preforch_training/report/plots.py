"""The report's plots, PNG. In: a `Report` and training curves. Out: file names by title."""

from collections.abc import Callable, Mapping
from itertools import combinations, cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from preforch_training.report.costs import Curve
from preforch_training.report.policies.records import PolicyReport, SweepPoint
from preforch_training.report.records import Report
from preforch_training.statistics.predictors import CONSTANT, SHUFFLED, UNIFORM, F
from preforch_training.study.records import GapFindings

COLORS = ("tab:gray", "tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown")
"""Of policies in a plot."""


def draw_plots(report: Report, curves: Mapping[str, Mapping[str, Curve]], folder: Path) -> dict[str, str]:
    """Draw what the report has; no sweep where no policy reads weights."""
    plots: dict[str, tuple[str, Callable[[], Figure]]] = {
        "Weights by kind of prompt": ("weights.png", lambda: weights_plot(report)),
        "Time and memory": ("stages.png", lambda: stages_plot(report)),
    }
    if curves:
        plots["Training curves"] = ("training.png", lambda: curves_plot(curves))
    if report.policy is not None and report.policy.sweep:
        policy = report.policy
        plots["Pareto sweep"] = ("pareto.png", lambda: pareto_plot(policy, report.objectives))
        plots["Control"] = ("control.png", lambda: control_plot(policy, report.objectives))
    findings = report.study.gap.findings if report.study and report.study.gap else None
    if findings is not None:
        plots["Alignment gap"] = ("gap.png", lambda: gap_plot(findings))
    for name, plot in plots.values():
        figure = plot()
        FigureCanvasAgg(figure)
        figure.savefig(folder / name, dpi=110)
    return {title: name for title, (name, _) in plots.items()}


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels side by side, 4.5 x 3.8 inches each."""
    figure = Figure(figsize=(4.5 * count, 3.8), layout="constrained")
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def curves_plot(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Losses by step, a panel for each stage."""
    figure, axes = panels(len(curves))
    for axis, (stage, lines) in zip(axes, curves.items(), strict=True):
        for name, curve in lines.items():
            steps, values = zip(*curve, strict=True)
            axis.plot(steps, values, marker="." if len(steps) < 20 else None, label=name)
        axis.set(title=stage, xlabel="step", ylabel="loss")
        axis.legend()
    return figure


def weights_plot(report: Report) -> Figure:
    """Mean weights with their spread; a dash marks the mean true weight."""
    groups = [g for g in report.orchestrator.weights if g.kind == "family"] or list(
        report.orchestrator.weights
    )
    figure = Figure(figsize=(max(6.0, 1.4 * len(groups)), 4.2), layout="constrained")
    axis = figure.add_subplot()
    width = 0.8 / len(report.objectives)
    for k, name in enumerate(report.objectives):
        places = [i + (k - (len(report.objectives) - 1) / 2) * width for i in range(len(groups))]
        axis.bar(
            places,
            [g.mean[name] for g in groups],
            width,
            yerr=[g.spread[name] for g in groups],
            label=name,
            capsize=2,
        )
        known = [(place, g.true_mean[name]) for place, g in zip(places, groups, strict=True) if g.true_mean]
        if known:
            axis.plot(*zip(*known, strict=True), "_", markersize=11, color="black", zorder=3)
    axis.set_xticks(range(len(groups)), [g.group for g in groups], rotation=20, ha="right")
    axis.set(ylabel="weight", ylim=(0, 1), title="recommended weights (dash: true)")
    axis.legend()
    return figure


def pareto_plot(policy: PolicyReport, objectives: tuple[str, ...]) -> Figure:
    """Mean rewards of every point of the grid,
    a panel for each pair of objectives; hollow where dominated."""
    pairs = list(combinations(objectives, 2))
    figure, axes = panels(len(pairs))
    for axis, (first, second) in zip(axes, pairs, strict=True):
        for name, color in zip(dict.fromkeys(p.policy for p in policy.sweep), cycle(COLORS), strict=False):
            for point in shown_points(policy, name):
                face = "none" if point.dominated else color
                axis.scatter(
                    point.rewards[first].value, point.rewards[second].value, facecolors=face, edgecolors=color
                )
            axis.scatter([], [], color=color, label=name)
        axis.set(xlabel=first, ylabel=second)
        axis.legend()
    return figure


def control_plot(policy: PolicyReport, objectives: tuple[str, ...]) -> Figure:
    """Mean reward against asked weight, a panel for each objective."""
    figure, axes = panels(len(objectives))
    for axis, name in zip(axes, objectives, strict=True):
        for number, policy_name in enumerate(dict.fromkeys(p.policy for p in policy.sweep)):
            points = shown_points(policy, policy_name)
            found = [point.rewards[name] for point in points]
            axis.errorbar(
                [point.weights[name] + 0.01 * number for point in points],
                [reward.value for reward in found],
                # Bootstrap bounds of a mean always hold the mean up to float noise.
                yerr=[
                    [max(0.0, reward.value - reward.low) for reward in found],
                    [max(0.0, reward.high - reward.value) for reward in found],
                ],
                fmt="o",
                markersize=4,
                label=policy_name,
            )
        axis.set(title=name, xlabel="asked weight", ylabel="mean reward")
        axis.legend()
    return figure


def stages_plot(report: Report) -> Figure:
    """Seconds and peak memory by stage."""
    figure, axes = panels(2)
    names = [stage.stage for stage in report.stages]
    axes[0].barh(names, [stage.seconds for stage in report.stages])
    axes[0].set(xlabel="seconds")
    axes[1].barh(names, [stage.peak_memory_mib for stage in report.stages])
    axes[1].set(xlabel="peak memory, MiB")
    for axis in axes:
        axis.invert_yaxis()
    return figure


def shown_points(policy: PolicyReport, name: str) -> list[SweepPoint]:
    """A policy's sweep by true rewards where they are known, by calibrated ones elsewhere."""
    points = [point for point in policy.sweep if point.policy == name]
    return [point for point in points if point.measure == "true"] or points


def gap_plot(findings: GapFindings) -> Figure:
    """Alignment gap by number of training prompts, beside the gaps that do not depend on it."""
    figure, (axis,) = panels(1)
    counts, gaps = [point.prompts for point in findings.curve], [point.gap for point in findings.curve]
    axis.plot(counts, [gap.value for gap in gaps], "o-", label=F)
    axis.fill_between(counts, [gap.low for gap in gaps], [gap.high for gap in gaps], alpha=0.2)
    rows = {row.name: row.gap.value for row in findings.table}
    for name, style in ((CONSTANT, "--"), (UNIFORM, ":"), (SHUFFLED, "-.")):
        axis.axhline(rows[name], linestyle=style, color="black", label=name)
    axis.set(xlabel="training prompts", ylabel="alignment gap", ylim=(0, None))
    axis.legend()
    return figure
