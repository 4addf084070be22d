"""Debian's Prometheus: rules are sound, a real gateway and a real vLLM are scraped, an alert fires.

Scraped are an engine and two replicas of a gateway in front of it. The second one has a deadline for
recommendations that nothing can meet (a microsecond): each of its recommendations becomes fallback weights.
Requests go to the first one alone, until a test wants fallbacks.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from gateway import start_engine
from monitoring import (
    ALERTS,
    Gateway,
    check_all,
    dashboard_queries,
    exported,
    gateway_in_front_of,
    rules,
    send_requests,
)
from preforch_models.bundle import read_bundle
from preforch_models.policy_card import read_policy_card
from preforch_models.run_folder import find_policy
from preforch_service.locate import find_bundle
from processes import wait_until
from servers import Server, free_port, running

pytestmark = pytest.mark.deploy

HERE = Path(__file__).parent


def tool(name: str) -> str:
    """The path of a program of Debian's package `prometheus`."""
    found = shutil.which(name)
    assert found is not None, (
        f"{name} is not installed; Debian's package prometheus has it, make test-deploy gets it"
    )
    return found


def promtool(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("promtool"), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS, folder=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_not_otherwise(tmp_path: Path) -> None:
    # The tests name the rules as a file beside them.
    for file in (ALERTS, HERE / "alerts_test.yaml"):
        shutil.copy(file, tmp_path)
    done = promtool("test", "rules", "alerts_test.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Watched:
    """A running Prometheus and what it watches."""

    prometheus: Server
    engine: Server
    gateway: Gateway
    late_gateway: Gateway

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of Prometheus' API."""
        answer = httpx.get(f"{self.prometheus.url}/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def states(self, alert: str) -> set[str]:
        """States of an alert's series: pending or firing; empty where it is inactive."""
        return {
            found["state"] for found in self.ask("alerts")["alerts"] if found["labels"]["alertname"] == alert
        }


def hurried_rules() -> str:
    """The rules with every `for` cut to 2 seconds, so that a test need not wait; nothing else differs."""
    hurried, times = re.subn(
        r"^( +for:) \w+$", r"\1 2s", ALERTS.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert times == sum("for" in rule for rule in rules())
    return hurried


def configuration(jobs: dict[str, list[int]]) -> dict[str, Any]:
    """Of a Prometheus that looks every second."""
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
            for job, ports in jobs.items()
        ],
    }


@pytest.fixture(scope="module")
def watched(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus")
    policy = find_policy(run_folder)
    fallback = read_bundle(find_bundle(run_folder)).info.fallback
    with ExitStack() as stack:
        engine = stack.enter_context(start_engine(policy, read_policy_card(policy), fallback, [], folder))
        gateways = []
        for name, options in (("gateway", ()), ("late", ("--orchestrator-deadline", "0.000001"))):
            (folder / name).mkdir()
            started = gateway_in_front_of(engine.url, run_folder, folder / name, *options)
            gateways.append(stack.enter_context(started))
        jobs = {
            "preference-orchestrator": [gateway.metrics_port for gateway in gateways],
            "vllm": [int(engine.url.rpartition(":")[2])],
        }
        (folder / "alerts.yaml").write_text(hurried_rules(), encoding="utf-8")
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration(jobs)), encoding="utf-8")
        port = free_port()
        command = [
            tool("prometheus"),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        prometheus = stack.enter_context(
            running("prometheus", command, port=port, folder=folder, health="/-/ready")
        )
        yield Watched(prometheus, engine, *gateways)


def test_all_targets_are_up(watched: Watched) -> None:
    def health() -> list[tuple[str, str]]:
        targets = watched.ask("targets")["activeTargets"]
        return sorted((target["labels"]["job"], target["health"]) for target in targets)

    expected = [("preference-orchestrator", "up"), ("preference-orchestrator", "up"), ("vllm", "up")]
    assert wait_until(lambda: health() == expected), watched.ask("targets")


def test_all_rules_are_loaded_and_evaluated(watched: Watched) -> None:
    def loaded() -> list[dict[str, Any]]:
        return [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]

    assert wait_until(lambda: all(rule["health"] == "ok" for rule in loaded())), loaded()
    names = [rule["alert"] if "alert" in rule else rule["record"] for rule in rules()]
    assert sorted(rule["name"] for rule in loaded()) == sorted(names)


def test_every_metric_and_label_is_that_of_a_real_gateway_and_a_real_engine(watched: Watched) -> None:
    send_requests(watched.gateway.server.url)
    engine = httpx.get(f"{watched.engine.url}/metrics").raise_for_status().text
    assert check_all(exported(watched.gateway.page()) | exported(engine)) == []


def test_every_query_of_the_dashboard_has_an_answer_with_the_labels_that_it_shows(watched: Watched) -> None:
    def unanswered() -> list[str]:
        # New samples, because a rate wants two that differ in time.
        send_requests(watched.gateway.server.url)
        found = []
        for query in dashboard_queries():
            series = watched.ask("query", query=query.expression)["result"]
            shown = [query.shown <= set(one["metric"]) for one in series]
            # No bundle has come into force, which is what this one asks for.
            if not all(shown) or (not shown and query.where != "Bundles"):
                found.append(f"{query.where}: {query.expression} gives {series}")
        return found

    wait_until(lambda: not unanswered(), seconds=120)
    assert unanswered() == []


def test_forced_fallbacks_make_their_alert_fire(watched: Watched) -> None:
    name = "PreforchFallbackRate"
    send_requests(watched.gateway.server.url)
    assert wait_until(
        lambda: bool(watched.ask("query", query="job_reason:preforch_fallbacks:share5m")["result"])
    )
    assert watched.states(name) == set()
    number = count()

    def firing() -> bool:
        # Each prompt is a new one: what the cache has is never late.
        prompts = [f"prompt {next(number)}" for _ in range(5)]
        url = f"{watched.late_gateway.server.url}/weights"
        answers = [httpx.post(url, json={"prompt": prompt}).raise_for_status().json() for prompt in prompts]
        assert {answer["source"] for answer in answers} == {"fallback"}
        return "firing" in watched.states(name)

    assert wait_until(firing, seconds=60), watched.ask("alerts")
    (alert,) = [found for found in watched.ask("alerts")["alerts"] if found["labels"]["alertname"] == name]
    assert alert["labels"]["reason"] == "late"
    assert float(alert["value"]) > 0.05
    assert "were late" in alert["annotations"]["description"]
