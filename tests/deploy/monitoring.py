"""The chart's dashboard and alert rules, read; and a gateway whose metrics they are checked against."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from preforch_models.run_folder import find_policy
from preforch_service.locate import find_bundle
from prometheus_client.parser import text_string_to_metric_families
from promql import Metrics, result_labels
from servers import Server, free_port, running

ROOT = Path(__file__).parents[2]
FILES = ROOT / "helm" / "preference-orchestrator" / "files"
ALERTS = FILES / "alerts.yaml"
DASHBOARD = FILES / "dashboard.json"
RUNBOOKS = ROOT / "docs" / "monitoring.md"
GRID = 24
"""Columns of a Grafana dashboard."""
CHAT = "/v1/chat/completions"
FULL = {"helpful": 0.7, "harmless": 0.2, "humor": 0.1}


@dataclass(frozen=True)
class Query:
    """An expression, where it stands, and the labels that the text beside it shows."""

    where: str
    expression: str
    shown: frozenset[str]


def rules() -> list[dict[str, Any]]:
    """All rules, in the order in which they are evaluated."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def filled(expression: str) -> str:
    """An expression as Grafana sends it, with everything chosen."""
    expression = expression.replace("$__rate_interval", "1m")
    for variable in dashboard()["templating"]["list"]:
        expression = re.sub(rf"\${variable['name']}\b", ".*", expression)
    assert "$" not in expression, f"a variable that the dashboard does not have: {expression}"
    return expression


def rule_queries() -> list[Query]:
    """The expressions of all rules, with the labels that annotations show."""
    return [
        Query(
            rule["alert"] if "alert" in rule else rule["record"],
            rule["expr"],
            frozenset(re.findall(r"\$labels\.(\w+)", " ".join(rule.get("annotations", {}).values()))),
        )
        for rule in rules()
    ]


def dashboard_queries() -> list[Query]:
    """The expressions of all panels, variables and annotations."""
    read = dashboard()
    found = [
        Query(
            panel["title"],
            filled(target["expr"]),
            frozenset(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])),
        )
        for panel in panels()
        for target in panel["targets"]
    ]
    for variable in read["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked, variable["name"]
            found.append(Query(f"${variable['name']}", filled(asked[1]), frozenset({asked[2]})))
    for annotation in read["annotations"]["list"]:
        shown = frozenset(re.findall(r"\{\{(\w+)\}\}", annotation["textFormat"]))
        found.append(Query(annotation["name"], filled(annotation["expr"]), shown))
    return found


def exported(page: str) -> dict[str, frozenset[str]]:
    """Labels by the name of each sample on a metrics page."""
    found: dict[str, frozenset[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, frozenset()) | set(sample.labels)
    return found


def check_all(metrics: Mapping[str, frozenset[str]]) -> list[str]:
    """What rules and dashboard use or show and these metrics do not have, one line each."""
    known: Metrics = dict(metrics)
    wrong = []
    for rule in rules():
        if "record" in rule:
            known = {**known, rule["record"]: result_labels(rule["expr"], known)}
    for query in [*rule_queries(), *dashboard_queries()]:
        try:
            missing = query.shown - result_labels(query.expression, known)
        except ValueError as error:
            wrong.append(f"{query.where}: {error}")
        else:
            wrong += (
                [f"{query.where}: shows {sorted(missing)}, which its result does not have"] if missing else []
            )
    return wrong


@dataclass(frozen=True)
class Gateway:
    """A running gateway process."""

    server: Server
    metrics_port: int

    def page(self) -> str:
        """Its metrics page."""
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").raise_for_status().text


@contextmanager
def gateway_in_front_of(engine: str, run: Path, folder: Path, *options: str) -> Iterator[Gateway]:
    """`preforch serve BUNDLE --upstream ENGINE`, ready."""
    port, metrics_port = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "preforch_service", str(find_bundle(run))),
        *("--upstream", engine, "--policy-card", str(find_policy(run) / "preference.json")),
        *("--port", str(port), "--metrics-port", str(metrics_port), *options),
    ]
    environment = {"OMP_NUM_THREADS": "1"}
    with running(
        "gateway", command, port=port, folder=folder, environment=environment, health="/readyz"
    ) as server:
        yield Gateway(server, metrics_port)


def send_requests(url: str) -> None:
    """One of each kind: recommended, cached, given by the user, streamed, wrong."""
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    with httpx.Client(base_url=url, timeout=60) as client:
        for more in ({}, {}, {"preference_weights": FULL}, {"stream": True}):
            client.post(CHAT, json=chat | more).raise_for_status()
        client.post("/weights", json={"prompt": "another"}).raise_for_status()
        assert client.post("/weights", json={}).status_code == 400
