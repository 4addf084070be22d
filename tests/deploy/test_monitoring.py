"""Alert rules and dashboard use what gateways and engines export, can be read, and are explained."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import FakeUpstream, any_answer, engine_app, running_app
from monitoring import (
    ALERTS,
    GRID,
    ROOT,
    RUNBOOKS,
    alerts,
    check_all,
    dashboard,
    dashboard_queries,
    exported,
    gateway_in_front_of,
    panels,
    rules,
    send_requests,
)
from promql import metric_names, result_labels

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
VLLM_LABELS = frozenset({"model_name", "engine", "le"})
"""Of all of vLLM's metrics that are used here; test_prometheus.py looks at a real engine."""


@pytest.fixture(scope="module")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The metrics page of a real gateway process that has had a request of each kind."""
    folder = tmp_path_factory.mktemp("gateway")
    engine = running_app(engine_app(FakeUpstream(answer=any_answer)))
    with engine as url, gateway_in_front_of(url, run_folder, folder) as gateway:
        send_requests(gateway.server.url)
        yield gateway.page()


def vllm_metrics() -> dict[str, frozenset[str]]:
    """What the installed vLLM defines, read from its source: its modules want an engine's configuration."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "v1" / "metrics" / "loggers.py"
    found: dict[str, frozenset[str]] = {}
    for call in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        kind = call.func.attr.strip("_").removesuffix("_cls")
        for argument in call.keywords:
            if argument.arg == "name" and isinstance(argument.value, ast.Constant) and kind in SUFFIXES:
                found |= {f"{argument.value.value!s}{suffix}": VLLM_LABELS for suffix in SUFFIXES[kind]}
    return found


def test_every_metric_and_label_is_exported(page: str) -> None:
    found = vllm_metrics()
    assert len(found) > 50
    assert check_all(exported(page) | found) == []


def test_the_metrics_in_the_readme_are_those_of_the_page(page: str) -> None:
    readme = (ROOT / "service" / "README.md").read_text(encoding="utf-8")
    table = readme.split("| `preforch_...` | says |")[1].split("\n\n")[0]
    named = {
        name: frozenset(filter(None, labels.split(",")))
        for row in table.splitlines()
        for name, labels in re.findall(r"`(\w+)(?:\{([\w,]+)\})?`", row.split("|")[1] if "|" in row else "")
        if not name.startswith("process_")
    }
    # A histogram is named once there, without what its samples are called and without le.
    shown = {
        re.sub(r"^preforch_|_(bucket|sum|count)$", "", name): labels - {"le"}
        for name, labels in exported(page).items()
        if name.startswith("preforch_") and not name.endswith("_created")
    }
    infos = {name: shown.pop(name) for name in ("bundle_info", "build_info")}
    assert {name: labels for name, labels in named.items() if name not in infos} == shown
    assert infos.keys() <= named.keys()


def test_a_wrong_name_label_or_grouping_is_found() -> None:
    metrics = {"a_total": frozenset({"route"}), "b": frozenset({"le", "objective"})}
    assert result_labels("sum by (route, job) (rate(a_total[5m]))", metrics) == {"route", "job"}
    assert result_labels("histogram_quantile(0.5, sum by (le, job) (rate(b[5m])))", metrics) == {"job"}
    assert result_labels("time() - a_total", metrics) == {"route", "job", "instance", "namespace"}
    for wrong in (
        "a",
        'a_total{status="1"}',
        "sum by (objective) (a_total)",
        "sum by (job) (a_total) / on (route) group_left () sum by (route) (a_total)",
        "rate(b[5m]) > 1 and missing",
    ):
        with pytest.raises(ValueError, match=r"nothing exports|no labels"):
            result_labels(wrong, metrics)


def test_what_is_recorded_is_used_by_alert_and_dashboard() -> None:
    alerting = set().union(*(metric_names(rule["expr"]) for rule in alerts()))
    shown = set().union(*(metric_names(query.expression) for query in dashboard_queries()))
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert recorded <= alerting
    assert {name for name in shown | alerting if ":" in name and not name.startswith("vllm:")} == recorded


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_says_what_it_is_and_has_a_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    # absent() has no value to show.
    assert "$value" in annotations["description"] or alert["expr"].startswith("absent(")
    text = RUNBOOKS.read_text(encoding="utf-8")
    sections = {
        anchor(part.split("\n", 1)[0]): part for part in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]
    }
    assert annotations["runbook_url"] == f"docs/monitoring.md#{anchor(alert['alert'])}"
    assert anchor(alert["alert"]) in sections, f"docs/monitoring.md has no section {alert['alert']}"
    section = sections[anchor(alert["alert"])]
    for question in ("**Means**", "**Look at**", "**Do**"):
        assert question in section, f"the section {alert['alert']} lacks {question}"


def test_every_threshold_has_its_reason() -> None:
    lines = ALERTS.read_text(encoding="utf-8").splitlines()
    named = [number for number, line in enumerate(lines) if line.strip().startswith("- alert:")]
    assert len(named) == len(alerts())
    assert [lines[number] for number in named if not lines[number - 1].strip().startswith("#")] == []


def test_every_alert_is_unit_tested_firing_and_not_firing() -> None:
    tests = yaml.safe_load((Path(__file__).parent / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    cases = [case for group in tests for case in group["alert_rule_test"]]
    names = {alert["alert"] for alert in alerts()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_every_panel_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert all(target["legendFormat"] for target in panel["targets"])
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    named = set(re.findall(r"Preforch\w+", panel["description"]))
    assert named <= {alert["alert"] for alert in alerts()}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    found = dashboard()["panels"]
    ids = [panel["id"] for panel in found]
    assert len(set(ids)) == len(ids)
    for panel in found:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= GRID, panel["title"]
    for one, other in combinations(found, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one['title']} and {other['title']} overlap"


def test_the_dashboard_has_its_rows_and_variables() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["Traffic and errors", "Weights", "Recommendation", "Engine", "Process"]
    variables = [variable["name"] for variable in dashboard()["templating"]["list"]]
    assert variables == ["datasource", "job", "instance", "model", "objective"]
    # An import must not overwrite a dashboard by its number.
    assert "id" not in dashboard()
