"""What the chart renders over all value sets is what Kubernetes takes, and is safe."""

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart import (
    CHART,
    ROOT,
    Manifest,
    container,
    containers,
    merged,
    named,
    notes,
    of_kind,
    pods,
    read_values,
    render,
    schema,
    value_sets,
)
from helm_python.chart import lint
from preforch_service.server import LAST_WORDS

KUBERNETES = ("1.33", "1.35", "1.37")
CUSTOM = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute"}
each_value_set = pytest.mark.parametrize("name", value_sets())


def test_the_matrix_is_large_and_has_every_choice_that_the_schema_knows() -> None:
    assert len(value_sets()) >= 12
    all_values = [merged(name) for name in value_sets()]
    taken: dict[str, set[Any]] = {}
    known: dict[str, set[Any]] = {}
    for path, choice, choices in choices_of(schema()):
        known[choice] = set(choices)
        taken.setdefault(choice, set()).update(at(values, path) for values in all_values)
    missing = {choice: words - taken[choice] for choice, words in known.items() if words - taken[choice]}
    assert missing == {}
    assert len(known) > 20


def choices_of(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, list[Any]]]:
    """Every value that is one of a few words, or on or off: its path, the choice's name, the words.

    A choice that several values share (pull policies) has one name, and need not be seen in each of them.
    """
    definitions = schema()["definitions"]
    for key, below in node.get("properties", {}).items():
        shared = below.get("$ref", "").rpartition("/")[2]
        resolved = definitions[shared] if shared else below
        if "enum" in resolved:
            yield (*path, key), shared or ".".join((*path, key)), resolved["enum"]
        elif resolved.get("type") == "boolean":
            yield (*path, key), ".".join((*path, key)), [True, False]
        else:
            yield from choices_of(resolved, (*path, key))


def at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key] if isinstance(values, dict) and key in values else None
    return values


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_manifest(version: str) -> None:
    all_manifests = [manifest for name in value_sets() for manifest in render(read_values(name))]
    # Many are the same in several value sets, and this is slow.
    different = {
        json.dumps(manifest): manifest for manifest in all_manifests if manifest["kind"] not in CUSTOM
    }
    assert len(different) > 50
    for manifest in different.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_fails() -> None:
    deployment = named(render(read_values("split-gpu")), "Deployment", "-gateway")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(deployment, KUBERNETES[0], strict=True)


@each_value_set
def test_strict_lint_is_clean(name: str) -> None:
    report = lint(CHART, read_values(name), strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@each_value_set
def test_names_are_unique_and_notes_are_written(name: str) -> None:
    manifests = render(read_values(name))
    names = [
        (manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests
    ]
    assert len(set(names)) == len(names)
    assert {manifest["metadata"]["namespace"] for manifest in manifests} == {"pro"}
    assert all(len(name) <= 63 for _, _, name in names)
    assert len(notes(read_values(name))) > 20


@each_value_set
def test_pods_are_restricted(name: str) -> None:
    for pod in pods(render(read_values(name))):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in containers(pod):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            assert each["resources"]["limits"]["memory"], each["name"]


@each_value_set
def test_the_grace_period_is_longer_than_pre_stop_and_drain(name: str) -> None:
    drain = merged(name)["drainSeconds"]
    for deployment in of_kind(render(read_values(name)), "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        for each in spec["containers"]:
            pause = each["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pause > 0
            assert spec["terminationGracePeriodSeconds"] > pause + drain + LAST_WORDS


@each_value_set
def test_every_container_is_probed_by_what_its_probe_is_for(name: str) -> None:
    for deployment in of_kind(render(read_values(name)), "Deployment"):
        for each in deployment["spec"]["template"]["spec"]["containers"]:
            startup = each["startupProbe"]
            budget = merged(name)[each["name"]]["startupSeconds"]
            assert budget <= startup["periodSeconds"] * startup["failureThreshold"] < budget + 10
            if each["name"] == "gateway":
                paths = [
                    each[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")
                ]
                assert paths == ["/livez", "/livez", "/readyz"]


def matches(selector: dict[str, str], pod: Manifest) -> bool:
    labels: dict[str, str] = pod["metadata"]["labels"]
    return selector.items() <= labels.items()


@each_value_set
def test_selectors_find_exactly_the_pods_that_they_mean(name: str) -> None:
    manifests = render(read_values(name))
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            selector = spec["selector"]["matchLabels"]
        elif manifest["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        elif manifest["kind"] == "Service":
            selector = spec["selector"]
        else:
            continue
        found = [pod for pod in pods(manifests) if matches(selector, pod)]
        component = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
        assert [pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in found] == [component]


@each_value_set
def test_named_ports_exist(name: str) -> None:
    manifests = render(read_values(name))
    known = {
        port["name"] for pod in pods(manifests) for each in containers(pod) for port in each.get("ports", [])
    }
    used = {
        port["targetPort"] for service in of_kind(manifests, "Service") for port in service["spec"]["ports"]
    }
    policies = [rule for policy in of_kind(manifests, "NetworkPolicy") for rule in policy["spec"]["ingress"]]
    used |= {port["port"] for rule in policies for port in rule["ports"]}
    services = {
        port["name"] for service in of_kind(manifests, "Service") for port in service["spec"]["ports"]
    }
    monitored = {
        end["port"] for found in of_kind(manifests, "ServiceMonitor") for end in found["spec"]["endpoints"]
    }
    scraped = {
        end["port"]
        for found in of_kind(manifests, "PodMonitor")
        for end in found["spec"]["podMetricsEndpoints"]
    }
    assert used <= known
    assert scraped <= known
    assert monitored <= services


@each_value_set
def test_a_service_monitor_finds_one_service(name: str) -> None:
    manifests = render(read_values(name))
    for monitor in of_kind(manifests, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        found = [service for service in of_kind(manifests, "Service") if matches(wanted, service)]
        assert len(found) == 1


@each_value_set
def test_every_mount_has_its_volume_and_no_secret_is_made(name: str) -> None:
    manifests = render(read_values(name))
    assert of_kind(manifests, "Secret") == []
    for pod in pods(manifests):
        volumes = [volume["name"] for volume in pod["spec"].get("volumes", [])]
        assert len(set(volumes)) == len(volumes)
        mounted = {mount["name"] for each in containers(pod) for mount in each.get("volumeMounts", [])}
        assert mounted == set(volumes)


def test_the_engine_is_open_to_the_gateway_and_prometheus_alone() -> None:
    manifests = render(read_values("split-autoscaled"))
    policy = named(manifests, "NetworkPolicy", "-engine")
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    (rule,) = policy["spec"]["ingress"]
    gateway, prometheus = rule["from"]
    allowed = [pod for pod in pods(manifests) if matches(gateway["podSelector"]["matchLabels"], pod)]
    assert [pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in allowed] == ["gateway"]
    assert prometheus == prometheus_of("monitoring", {"app.kubernetes.io/name": "prometheus"})


def prometheus_of(namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    space = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return {"namespaceSelector": space, "podSelector": {"matchLabels": labels}}


def test_metrics_are_open_to_prometheus_alone_and_the_api_to_whom_it_is_said() -> None:
    policy = named(render(read_values("external-httproute")), "NetworkPolicy", "-gateway")
    api, metrics = policy["spec"]["ingress"]
    assert metrics == {
        "ports": [{"port": "metrics", "protocol": "TCP"}],
        "from": [prometheus_of("observability", {"app": "prometheus"})],
    }
    assert len(api["from"]) == 3
    (anybody, _) = named(render(read_values("external")), "NetworkPolicy", "-gateway")["spec"]["ingress"]
    assert "from" not in anybody


def test_an_autoscaler_owns_the_number_of_replicas() -> None:
    manifests = render(read_values("split-autoscaled"))
    for end in ("-gateway", "-engine"):
        assert "replicas" not in named(manifests, "Deployment", end)["spec"]
    assert named(manifests, "HorizontalPodAutoscaler", "-gateway")["spec"]["minReplicas"] == 3
    (trigger,) = named(manifests, "ScaledObject", "-engine")["spec"]["triggers"]
    assert trigger["metadata"]["query"] == (
        'sum(vllm:num_requests_waiting{namespace="pro",pod=~"rel-preference-orchestrator-engine-.*"})'
    )


@pytest.mark.parametrize(
    ("name", "gpus"),
    [("split-gpu", ("nvidia.com/gpu", "1")), ("split-cuda-gateway", ("nvidia.com/mig-3g.40gb", "1"))],
)
def test_the_engine_gets_its_gpus(name: str, gpus: tuple[str, str]) -> None:
    engine = named(render(read_values(name)), "Deployment", "-engine")["spec"]["template"]
    assert gpus in container(engine, "engine")["resources"]["limits"].items()


def test_the_rules_and_the_dashboard_are_the_files() -> None:
    manifests = render(read_values("split-autoscaled"))
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    assert named(manifests, "PrometheusRule", "")["spec"] == rules
    (text,) = named(manifests, "ConfigMap", "-dashboard")["data"].values()
    assert json.loads(text) == json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))


def test_streams_are_not_buffered_nor_cut_off() -> None:
    annotations = named(render(read_values("external")), "Ingress", "-gateway")["metadata"]["annotations"]
    found = {key.rpartition("/")[2]: value for key, value in annotations.items()}
    assert found["proxy-buffering"] == "off"
    assert int(found["proxy-read-timeout"]) > merged("external")["gateway"]["firstByteSeconds"]
    (rule,) = named(render(read_values("external-httproute")), "HTTPRoute", "-gateway")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_fetched_artifacts_are_pinned() -> None:
    pod = named(render(read_values("external-httproute")), "Deployment", "-gateway")["spec"]["template"]
    for name in ("fetch-bundle", "fetch-policy"):
        fetch = container(pod, name)
        given = {variable["name"]: variable for variable in fetch["env"]}
        assert given["REVISION"]["value"] == "0123456789abcdef0123456789abcdef01234567"
        assert given["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "read"}
    assert '"policy/preference.json"' in container(pod, "fetch-policy")["args"][0], (
        "the gateway needs the card alone"
    )


def test_the_chart_has_the_version_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])
    gateway = named(render(read_values("split-gpu")), "Deployment", "-gateway")["spec"]["template"]
    assert (
        container(gateway, "gateway")["image"]
        == f"ghcr.io/preference-orchestrator/gateway:{project['version']}"
    )
