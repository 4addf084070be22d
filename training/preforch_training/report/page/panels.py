"""Parts of the page's plots: panels, dots with intervals, and how policies look.

Colours of axes, grid and texts come from the page (`page.css`, `--bk-*`), for light and dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bokeh.models import (
    Column,
    ColumnDataSource,
    FactorRange,
    GlyphRenderer,
    HoverTool,
    InlineStyleSheet,
    LayoutDOM,
    Legend,
    LegendItem,
    Row,
)
from bokeh.palettes import Colorblind
from bokeh.plotting import figure

from preforch_training.statistics.bootstrap import Interval

# Without yellow and black, each of which is lost on one of the page's two backgrounds.
COLORS = tuple(color for color in Colorblind[8] if color not in ("#F0E442", "#000000"))
MARKERS = ("circle", "triangle", "square", "diamond", "inverted_triangle", "star", "square_pin")
"""One more than colours, so that 42 policies differ in one of both."""
PANEL, NAME = 340, 22
"""Heights in pixels: of a panel, and of each name beside one."""
LEGEND_COLUMNS = 2
LEGEND_STYLE = """
:host { background-color: var(--page) !important; border-color: var(--line) !important; }
.bk-label { color: var(--text) !important; }
.bk-item { --item-background-inactive-color: color-mix(in srgb, var(--page) 75%, transparent) !important; }
"""


@dataclass(frozen=True)
class Plot:
    """`reading`: what a reader must know to read it."""

    title: str
    reading: str
    model: LayoutDOM


@dataclass(frozen=True)
class Look:
    """Colour and shape of what belongs together."""

    color: str
    marker: str


@dataclass(frozen=True)
class Dot:
    """A value between two bounds, beside its name; two names where names come in groups."""

    name: str | tuple[str, str]
    value: float
    low: float
    high: float
    look: Look
    prompts: int


def look(number: int) -> Look:
    """The one of what comes at this place, from 0."""
    return Look(COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)])


def dot(name: str, found: Interval, its_look: Look) -> Dot:
    """A statistic with its interval."""
    return Dot(name, found.value, found.low, found.high, its_look, found.groups)


def panel(**options: object) -> figure:
    """An empty one, as wide as there is room."""
    shape = {"height": PANEL, "min_width": 260, "sizing_mode": "stretch_width"}
    drawn = figure(**{**shape, "tools": "tap,box_zoom,reset,save", **options})
    drawn.toolbar.logo = None
    # A finger that scrolls the page must not zoom.
    drawn.toolbar.active_drag = None
    drawn.toolbar.autohide = True
    return drawn


def side_by_side(panels: Sequence[figure]) -> LayoutDOM:
    """Panels in a row that wraps where the window is narrow."""
    return Row(children=list(panels), sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})


def below(legend: figure, panels: Sequence[figure]) -> LayoutDOM:
    """Panels below the legend of them all."""
    return Column(children=[legend, side_by_side(panels)], sizing_mode="stretch_width")


def legend_panel(drawn: Mapping[str, Sequence[GlyphRenderer]], looks: Mapping[str, Look]) -> figure:
    """Names of what is drawn in several panels; a click on one hides it in all of them."""
    rows = -(-len(drawn) // LEGEND_COLUMNS)
    holder = panel(height=30 + 25 * rows, tools="", toolbar_location=None, x_range=(0, 1), y_range=(0, 1))
    holder.axis.visible = holder.grid.visible = False
    holder.outline_line_alpha = 0
    # A legend takes a shape from a point of its own panel: here one that is out of sight.
    shown = {
        name: holder.scatter([-1], [-1], size=9, marker=looks[name].marker, color=looks[name].color)
        for name in drawn
    }
    items = [LegendItem(label=name, renderers=[shown[name], *found]) for name, found in drawn.items()]
    legend = Legend(items=items, ncols=LEGEND_COLUMNS, location="top_left", border_line_alpha=0, margin=0)
    style_legend(legend)
    holder.add_layout(legend)
    return holder


def style_legend(legend: Legend) -> None:
    """In the colours of the page. Legends are elements, not drawn: they take their style from a sheet."""
    legend.click_policy = "hide"
    legend.stylesheets = [InlineStyleSheet(css=LEGEND_STYLE)]


def dots_panel(dots: Sequence[Dot], label: str) -> figure:
    """Dots with their bounds, one below the other."""
    names = [each.name for each in reversed(dots)]
    drawn = panel(y_range=FactorRange(*names), height=70 + NAME * len(dots), x_axis_label=label)
    source = ColumnDataSource(
        {
            "name": [each.name for each in dots],
            "shown": [each.name if isinstance(each.name, str) else ", ".join(each.name) for each in dots],
            "value": [each.value for each in dots],
            "low": [each.low for each in dots],
            "high": [each.high for each in dots],
            "prompts": [each.prompts for each in dots],
            "color": [each.look.color for each in dots],
            "marker": [each.look.marker for each in dots],
        }
    )
    drawn.segment("low", "name", "high", "name", color="color", line_width=2, source=source)
    shapes = drawn.scatter("value", "name", marker="marker", color="color", size=10, source=source)
    about = [("", "@shown"), (label, "@value{0.000} [@low{0.000}, @high{0.000}]"), ("prompts", "@prompts")]
    drawn.add_tools(HoverTool(renderers=[shapes], tooltips=about))
    drawn.ygrid.visible = False
    return drawn


def bars_panel(names: Sequence[str], values: Sequence[float], label: str) -> figure:
    """Bars from 0, one below the other."""
    drawn = panel(y_range=FactorRange(*reversed(names)), height=70 + NAME * len(names), x_axis_label=label)
    source = ColumnDataSource({"name": list(names), "value": list(values)})
    drawn.hbar(y="name", right="value", height=0.7, color=COLORS[0], source=source)
    drawn.add_tools(HoverTool(tooltips=[("", "@name"), (label, "@value{0,0.0}")]))
    drawn.x_range.start = 0
    drawn.ygrid.visible = False
    return drawn


def add_line(drawn: figure, xs: Sequence[float], ys: Sequence[float], name: str, number: int) -> None:
    """One of several lines of a panel; points are marked where they are few."""
    color = COLORS[number % len(COLORS)]
    source = ColumnDataSource({"x": list(xs), "y": list(ys)})
    line = drawn.line("x", "y", line_width=2, color=color, legend_label=name, source=source)
    if len(xs) < 20:
        drawn.scatter("x", "y", size=6, color=color, legend_label=name, source=source)
    about = [
        ("", name),
        (str(drawn.xaxis[0].axis_label), "@x"),
        (str(drawn.yaxis[0].axis_label), "@y{0.0000}"),
    ]
    drawn.add_tools(HoverTool(renderers=[line], tooltips=about, mode="vline"))
    style_legend(drawn.legend[0])
