"""The Helm chart, rendered by Helm's own library.

In:  values. Out: the manifests, or Helm's error.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from helm_python.chart import Chart

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "preference-orchestrator"
VALUES = Path(__file__).with_name("values")
RELEASE, NAMESPACE = "rel", "pro"

Manifest = dict[str, Any]
Values = dict[str, Any]


def value_sets() -> list[str]:
    """Names of the value sets, which are examples too."""
    return sorted(file.stem for file in VALUES.glob("*.yaml"))


def read_values(name: str) -> Values:
    """One value set."""
    values: Values = yaml.safe_load((VALUES / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def schema() -> dict[str, Any]:
    """The schema of the values."""
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return found


def merged(name: str) -> Values:
    """A value set on top of the defaults."""
    with Chart.load(CHART) as chart:
        return chart.merge_values(read_values(name))


def check_values(values: Mapping[str, Any]) -> None:
    """Raise HelmValuesError when the schema refuses the values."""
    with Chart.load(CHART) as chart:
        chart.validate_schema(dict(values))


def render(
    values: Mapping[str, Any], *, release: str = RELEASE, namespace: str = NAMESPACE
) -> list[Manifest]:
    """All manifests but the notes, hooks included."""
    with Chart.load(CHART) as chart:
        rendered = chart.render(dict(values), name=release, namespace=namespace)
    texts = [text for name, text in rendered.items() if not name.endswith("NOTES.txt")]
    # The C loader: the matrix is parsed often.
    return [manifest for text in texts for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest]


def notes(values: Mapping[str, Any]) -> str:
    """What Helm says after an installation."""
    with Chart.load(CHART) as chart:
        return chart.render(dict(values), name=RELEASE, namespace=NAMESPACE)[
            f"{CHART.name}/templates/NOTES.txt"
        ]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """The manifests of a kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def named(manifests: list[Manifest], kind: str, end: str) -> Manifest:
    """The only manifest of a kind whose name ends so."""
    (found,) = [found for found in of_kind(manifests, kind) if found["metadata"]["name"].endswith(end)]
    return found


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """Labels and spec of every pod: those of Deployments, and that of `helm test`."""
    templates = [deployment["spec"]["template"] for deployment in of_kind(manifests, "Deployment")]
    return templates + of_kind(manifests, "Pod")


def containers(pod: Manifest) -> Iterator[Manifest]:
    """All containers of a pod, those of the start included."""
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


def container(pod: Manifest, name: str) -> Manifest:
    """One container of a pod."""
    (found,) = [found for found in containers(pod) if found["name"] == name]
    return found
