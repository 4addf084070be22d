"""Learning curves: what policies on the way answer to test prompts, by samples and KL (paper, Figure 3)."""

from collections.abc import Callable, Sequence
from itertools import groupby

from preforch_training.report.page.panels import Plot, add_line, panel, side_by_side
from preforch_training.report.policies.records import CurvePoint
from preforch_training.statistics.bootstrap import Interval


def learning_plot(curves: Sequence[CurvePoint]) -> Plot:
    """A panel for every pair of axes that there are numbers for."""
    ys: dict[str, Callable[[CurvePoint], Interval | None]] = {
        "learned utility": lambda point: point.learned,
        "true utility": lambda point: point.utility,
    }
    xs: dict[str, Callable[[CurvePoint], float | None]] = {
        "samples": lambda point: point.samples,
        "KL, nats an answer": lambda point: None if point.kl is None else point.kl.value,
    }
    by_policy = {name: list(points) for name, points in groupby(curves, lambda point: point.policy)}
    panels = []
    for label, read_y in ys.items():
        for axis in xs:
            drawn = panel(x_axis_label=axis, y_axis_label=label)
            for number, (name, points) in enumerate(by_policy.items()):
                read_x = xs[axis]
                known = [(x, y.value) for p in points if (x := read_x(p)) is not None and (y := read_y(p))]
                if known:
                    add_line(drawn, [x for x, _ in known], [y for _, y in known], name, number)
            if drawn.renderers:
                panels.append(drawn)
    reading = (
        "On test prompts, after so many responses of its own training. Learned: f(x).r by the rewards that "
        "it is trained on; true: w°(x).r. Where the first rises and the second falls, rewards are "
        "over-optimised."
    )
    return Plot("Learning", reading, side_by_side(panels))
