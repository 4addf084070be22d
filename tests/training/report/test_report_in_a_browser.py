"""The report's page as its readers meet it: a headless Chromium that opens the file.

Skipped where no Chromium is installed (Debian: `apt-get install chromium`).
"""

from collections.abc import Iterator

import pytest
from browser import CHROMIUM, Page, browsing
from preforch_training.report.page.render import render_page
from preforch_training.report.records import StageCost
from report_samples import CURVES, make_report, true_weights

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
SECONDS = {"data": 9.5, "scores": 100.0, "bundle": 20.25}
STAGES = "[...document.querySelectorAll('table')].find(each => each.caption.textContent.startsWith('Time'))"
ROWS = f"[...{STAGES}.tBodies[0].rows].map(row => row.cells[0].textContent)"
PLOTS = 7
DRAWN = f"window.Bokeh && Bokeh.documents.length === {PLOTS} && Bokeh.documents.every(each => each.is_idle)"
# Elements of one class, wherever in Bokeh's shadow trees they are.
ALL_OF = """window.allOf = (name, root = document) => {
  const inner = [...root.querySelectorAll("*")].filter((each) => each.shadowRoot);
  return [...root.querySelectorAll(name), ...inner.flatMap((each) => allOf(name, each.shadowRoot))];
}; 0"""
# The Pareto sweep: its view, and whether what each name of its legend stands for is visible.
SWEEP = "[...Bokeh.index.roots].find(each => each.model.document === Bokeh.documents[2])"
VISIBLE = (
    f"[...{SWEEP}.model.references()].find(each => each.type === 'Legend')"
    ".items.map(item => item.renderers.map(each => each.visible))"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page as a file, with nothing beside it."""
    stages = tuple(StageCost(stage=k, seconds=v, peak_memory_mib=100.0) for k, v in SECONDS.items())
    report = make_report(true_weights).model_copy(update={"stages": stages})
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(render_page(report, CURVES), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Page]:
    """The page in a wide window."""
    with browsing(tmp_path_factory.mktemp("browser")) as page:
        resize(page, 1000)
        page.open(url)
        page.until(DRAWN)
        page.run(ALL_OF)
        yield page


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    """The page. Afterwards the browser must have had nothing to complain of."""
    yield opened
    assert opened.problems == []


def resize(page: Page, width: int) -> None:
    """Width of the window in pixels."""
    page.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=1200, deviceScaleFactor=1, mobile=False
    )


def test_opening_it_draws_every_plot_and_loads_nothing(page: Page) -> None:
    heights = page.run("[...document.querySelectorAll('.plot')].map(each => each.offsetHeight)")
    assert len(heights) == PLOTS
    assert min(heights) > 80
    assert page.run("performance.getEntriesByType('resource').length") == 0


def test_a_click_on_a_column_sorts_by_its_numbers_and_another_turns_it_round(page: Page) -> None:
    def click(column: int) -> list[str]:
        page.run(f"{STAGES}.tHead.rows[0].cells[{column}].querySelector('button').click()")
        return list(page.run(ROWS))

    assert page.run(ROWS) == ["data", "scores", "bundle", "all"]
    assert click(1) == ["data", "bundle", "scores", "all"]
    assert page.run(f"{STAGES}.tHead.rows[0].cells[1].ariaSort") == "ascending"
    assert click(1) == ["all", "scores", "bundle", "data"]
    assert click(0) == ["all", "bundle", "data", "scores"]
    assert page.run(f"{STAGES}.tHead.rows[0].cells[1].ariaSort") is None
    # The memory of all stages is an empty cell: last, whichever way.
    assert click(2)[-1] == click(2)[-1] == "all"


def test_a_click_on_a_name_of_the_legend_hides_the_policy_in_all_panels(page: Page) -> None:
    # Three panels for three pairs of objectives, and the legend's own.
    assert page.run(VISIBLE) == [[True] * 4] * 2
    x, y = page.run(
        "(() => { const name = allOf('.bk-item', document.querySelector('#plot-3'))[0];"
        "name.scrollIntoView(); const box = name.getBoundingClientRect(); return [box.x + 9, box.y + 9]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    page.until(f"!{VISIBLE}[0].includes(true)")
    assert page.run(VISIBLE)[1] == [True] * 4


def test_the_pointer_on_a_point_shows_its_weights_and_rewards(page: Page) -> None:
    page.run("document.querySelector('#plot-3').scrollIntoView()")
    x, y = page.run(
        f"(() => {{ const panel = {SWEEP}.child_views[1].child_views[0], frame = panel.frame;"
        "const at = panel.model.renderers[1].data_source.data, box = panel.el.getBoundingClientRect();"
        "return [box.x + frame.x_scale.compute(at.r0[0]), box.y + frame.y_scale.compute(at.r1[0])]; })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    shown = "allOf('.bk-tooltip-content').map(each => each.innerText).join()"
    page.until(f"{shown}.includes('online')")
    # The first point of the grid asks for nothing but humour.
    assert "asked 1.00, reward 1.000 [1.000, 1.000]" in page.run(shown)


def test_a_narrow_dark_window_needs_no_sideways_scrolling(page: Page, url: str) -> None:
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    resize(page, 400)
    page.open(f"{url}?anew")
    page.until(DRAWN)
    assert page.run("document.documentElement.scrollWidth") <= 400
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 27)"
