"""The report as one HTML page. In: a `Report` and training curves. Out: the page's text.

Everything is inside: the page's security policy lets a browser load nothing, from this machine or another.
It can be read without JavaScript; with it, tables can be sorted and plots answer to the pointer.
"""

from collections.abc import Mapping
from pathlib import Path

from bokeh.embed import json_item
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from preforch_training.report.costs import Curve
from preforch_training.report.page.blocks import write_html
from preforch_training.report.page.figures import make_plots
from preforch_training.report.page.summary import summarise_report
from preforch_training.report.records import Report
from preforch_training.report.tables import opening_blocks, sections_of


def render_page(report: Report, curves: Mapping[str, Mapping[str, Curve]]) -> str:
    """The whole page."""
    folder = Path(__file__).parent
    plots = make_plots(report, curves)
    sections = sections_of(report)
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # A model of Bokeh is spelled out where it first comes; sorted keys would refer to it before that.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.get_template("page.html.jinja").render(
        title=f"Report of {report.preset}, seed {report.seed}",
        opening=write_html(opening_blocks(report), 2, "opening"),
        summary=write_html([summarise_report(report)], 3, "summary"),
        headings=[section.title for section in sections],
        sections=write_html(sections, 2, "part"),
        plots=plots,
        models=[json_item(plot.model, f"plot-{number}") for number, plot in enumerate(plots, 1)],
        bokeh=Markup("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)),
        css=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
    )
