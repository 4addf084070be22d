"""The Pareto sweep and control, every policy in every panel.

The panels of a plot share the points of a policy: a click on one marks it in all of them, a click on a name
of the legend hides the policy in all.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from bokeh.models import ColumnDataSource, GlyphRenderer, HoverTool, LayoutDOM
from bokeh.plotting import figure
from bokeh.transform import dodge

from preforch_training.report.page.panels import Look, Plot, below, legend_panel, look, panel
from preforch_training.report.plots import shown_points
from preforch_training.report.policies.records import PolicyReport, SweepPoint

BESIDE = 0.08
"""How far the points of the last policy lie from those of the first, in units of weight."""


def looks_of(policy: PolicyReport) -> dict[str, Look]:
    """Colour and shape of every policy, alike in all plots."""
    named = [entry.arm.policy for entry in policy.utilities] + [point.policy for point in policy.sweep]
    return {name: look(number) for number, name in enumerate(dict.fromkeys(named))}


def sweep_plots(policy: PolicyReport, objectives: Sequence[str], looks: Mapping[str, Look]) -> list[Plot]:
    """Rewards against each other, and against the weights that were asked for."""
    points = {name: found for name in looks if (found := shown_points(policy, name))}
    pareto = (
        "Mean rewards under every vector of weights of the grid, true ones where they are known, calibrated "
        "ones elsewhere. Hollow: another point of the policy is higher in every objective. Click a point to "
        "mark it in all panels, a name to hide a policy."
    )
    control = "Mean reward of every objective against the weight that was asked for; lines are 95% intervals."
    return [
        Plot("Pareto sweep", pareto, pareto_panels(points, objectives, looks)),
        Plot("Control", control, control_panels(points, objectives, looks)),
    ]


def pareto_panels(
    points: Mapping[str, Sequence[SweepPoint]], objectives: Sequence[str], looks: Mapping[str, Look]
) -> LayoutDOM:
    """A panel for each pair of objectives."""
    sources = {name: source_of(found, objectives) for name, found in points.items()}
    panels, drawn_by = [], {name: list[GlyphRenderer]() for name in points}
    for first, second in combinations(range(len(objectives)), 2):
        drawn = panel(x_axis_label=objectives[first], y_axis_label=objectives[second])
        for name, source in sources.items():
            drawn_by[name].append(scatter(drawn, f"r{first}", f"r{second}", looks[name], source))
        drawn.add_tools(hover(objectives))
        panels.append(drawn)
    return below(legend_panel(drawn_by, looks), panels)


def control_panels(
    points: Mapping[str, Sequence[SweepPoint]], objectives: Sequence[str], looks: Mapping[str, Look]
) -> LayoutDOM:
    """A panel for each objective; policies lie side by side."""
    sources = {name: source_of(found, objectives) for name, found in points.items()}
    panels, drawn_by = [], {name: list[GlyphRenderer]() for name in points}
    for k, objective in enumerate(objectives):
        drawn = panel(x_axis_label=f"asked weight of {objective}", y_axis_label=f"mean reward of {objective}")
        for number, (name, source) in enumerate(sources.items()):
            at = dodge(f"w{k}", BESIDE * number / len(sources))
            lines = drawn.segment(at, f"low{k}", at, f"high{k}", color=looks[name].color, source=source)
            drawn_by[name] += [lines, scatter(drawn, at, f"r{k}", looks[name], source)]
        drawn.add_tools(hover(objectives))
        panels.append(drawn)
    return below(legend_panel(drawn_by, looks), panels)


def source_of(points: Sequence[SweepPoint], objectives: Sequence[str]) -> ColumnDataSource:
    """Of the objective k: asked weight `wk`, mean reward `rk`, its bounds `lowk` and `highk`."""
    data: dict[str, list[float] | list[str]] = {
        "policy": [point.policy for point in points],
        "fill": [0.0 if point.dominated else 0.8 for point in points],
    }
    for k, name in enumerate(objectives):
        data[f"w{k}"] = [point.weights[name] for point in points]
        data[f"r{k}"] = [point.rewards[name].value for point in points]
        data[f"low{k}"] = [point.rewards[name].low for point in points]
        data[f"high{k}"] = [point.rewards[name].high for point in points]
    return ColumnDataSource(data)


def scatter(drawn: figure, x: object, y: str, its_look: Look, source: ColumnDataSource) -> GlyphRenderer:
    """The points of one policy."""
    return drawn.scatter(
        x, y, marker=its_look.marker, color=its_look.color, fill_alpha="fill", size=9, source=source
    )


def hover(objectives: Sequence[str]) -> HoverTool:
    """All weights and rewards of a point."""
    rows = [
        (name, f"asked @w{k}{{0.00}}, reward @r{k}{{0.000}} [@low{k}{{0.000}}, @high{k}{{0.000}}]")
        for k, name in enumerate(objectives)
    ]
    return HoverTool(tooltips=[("policy", "@policy"), *rows])
