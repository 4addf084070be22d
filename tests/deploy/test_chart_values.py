"""Wrong values are refused by the schema, with a message that says where and what."""

from typing import Any

import pytest
from chart import check_values, read_values, schema
from helm_python.errors import HelmValuesError

MINIMAL: dict[str, Any] = {
    "auth": {"secretName": "keys"},
    "bundle": {"pvc": {"claimName": "bundle"}},
    "policy": {"pvc": {"claimName": "policy"}},
}
REVISION = "0123456789abcdef0123456789abcdef01234567"


def over(base: Any, changes: Any) -> Any:
    """The base with the changes in it, as Helm merges values."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return {**base, **{key: over(base.get(key), value) for key, value in changes.items()}}


def hub(revision: str) -> dict[str, Any]:
    return {"bundle": {"source": "hub", "hub": {"repository": "acme/bundle", "revision": revision}}}


def variable(**given: Any) -> dict[str, Any]:
    return {"gateway": {"extraEnv": [given]}}


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a typo": ({"gatway": {"replicas": 3}}, ["gatway", "not allowed"]),
    "a typo below": ({"gateway": {"replica": 3}}, ["/gateway", "replica", "not allowed"]),
    "a typo in an artifact": ({"bundle": {"hub": {"repo": "a/b"}}}, ["/bundle/hub", "repo", "not allowed"]),
    "no such mode": ({"mode": "both"}, ["/mode", "split", "external", "allInOne"]),
    "a word for a number": ({"gateway": {"replicas": "two"}}, ["/gateway/replicas", "want integer"]),
    "no replicas": ({"gateway": {"replicas": 0}}, ["/gateway/replicas", "minimum", "1"]),
    "no keys": ({"auth": {"secretName": ""}}, ["/auth/secretName", "minLength"]),
    "keys and none": ({"auth": {"disabled": True}}, ["/auth/secretName", "maxLength"]),
    "a literal key": ({"auth": {"keys": ["pk-0123456789"]}}, ["/auth", "keys", "not allowed"]),
    "a key for a name": ({"auth": {"secretName": "pk-Z0_a"}}, ["/auth/secretName", "does not match pattern"]),
    "a literal token": (variable(name="HF_TOKEN", value="hf_x"), ["/gateway/extraEnv/0", "valueFrom"]),
    "literal keys in a variable": (
        variable(name="PREFORCH_API_KEYS", value="alice:k"),
        ["/gateway/extraEnv/0", "valueFrom"],
    ),
    "a branch": (hub("main"), ["/bundle/hub/revision", "'main'", "[0-9a-f]{40}"]),
    "a short commit": (hub(REVISION[:7]), ["/bundle/hub/revision", "[0-9a-f]{40}"]),
    "no revision": (hub(""), ["/bundle/hub/revision", "minLength"]),
    "no claim": ({"policy": {"pvc": {"claimName": ""}}}, ["/policy/pvc/claimName", "minLength"]),
    "an image that moves": (
        {"policy": {"source": "image", "image": {"reference": "registry.example/policy:latest"}}},
        ["/policy/image/reference", "not"],
    ),
    "a tag that moves": ({"engine": {"image": {"tag": "latest"}}}, ["/engine/image/tag", "not"]),
    "an archive without a hash": (
        {"bundle": {"source": "objectStorage", "objectStorage": {"url": "https://x.example/b.tar.gz"}}},
        ["/bundle/objectStorage/sha256", "minLength"],
    ),
    "plain http": (
        {"bundle": {"source": "objectStorage", "objectStorage": {"url": "http://x.example/b.tar.gz"}}},
        ["/bundle/objectStorage/url", "pattern"],
    ),
    "a way out of the source": ({"bundle": {"path": "../keys"}}, ["/bundle/path"]),
    "engines of its own and others": (
        {"gateway": {"upstreams": ["http://vllm:8000"]}},
        ["/gateway/upstreams", "maxItems"],
    ),
    "external without engines": ({"mode": "external"}, ["/gateway/upstreams", "minItems"]),
    "an address without a scheme": (
        {"mode": "external", "gateway": {"upstreams": ["vllm:8000"]}},
        ["/gateway/upstreams/0", "https?"],
    ),
    "a password in an address": (
        {"mode": "external", "gateway": {"upstreams": ["http://me:secret@vllm:8000"]}},
        ["/gateway/upstreams/0", "pattern"],
    ),
    "one pod that scales": (
        {"mode": "allInOne", "gateway": {"autoscaling": {"enabled": True}}},
        ["/gateway/autoscaling/enabled"],
    ),
    "engines that are not ours and scale": (
        {
            "mode": "external",
            "gateway": {"upstreams": ["http://v"]},
            "engine": {"autoscaling": {"enabled": True}},
        },
        ["/engine/autoscaling/enabled"],
    ),
    "an argument that the chart sets": (
        {"gateway": {"extraArgs": ["--drain-timeout=600"]}},
        ["/gateway/extraArgs/0", "not"],
    ),
    "another policy of a run": (
        {"gateway": {"extraArgs": ["--policy-name=wic"]}},
        ["/gateway/extraArgs/0", "not"],
    ),
    "a way around the keys": ({"gateway": {"extraArgs": ["--no-auth"]}}, ["/gateway/extraArgs/0", "not"]),
    "code of strangers": ({"engine": {"extraArgs": ["--trust-remote-code"]}}, ["/engine/extraArgs/0", "not"]),
    "an argument in two words": (
        {"engine": {"extraArgs": ["--seed", "1"]}},
        ["/engine/extraArgs/1", "pattern"],
    ),
    "a drain in words": ({"drainSeconds": "30s"}, ["/drainSeconds", "want integer"]),
    "an endless drain": ({"drainSeconds": 86400}, ["/drainSeconds", "maximum"]),
    "root": ({"podSecurity": {"runAsUser": 0}}, ["/podSecurity/runAsUser", "minimum"]),
    "an Ingress without hosts": ({"ingress": {"enabled": True}}, ["/ingress/hosts", "minItems"]),
    "a route to nobody": ({"mode": "route", "httpRoute": {"enabled": True}}, ["/backends", "minItems"]),
    "backends without a route": (
        {"backends": [{"service": "blue", "port": 80}]},
        ["/backends", "maxItems"],
    ),
    "no such monitor": ({"monitoring": {"monitor": "yes"}}, ["/monitoring/monitor", "ServiceMonitor"]),
    "no such device": ({"engine": {"accelerator": "tpu"}}, ["/engine/accelerator", "gpu"]),
}


def test_the_minimal_values_are_right() -> None:
    check_values(MINIMAL)


@pytest.mark.parametrize("what", WRONG)
def test_wrong_values_are_refused_with_their_place(what: str) -> None:
    changes, wanted = WRONG[what]
    with pytest.raises(HelmValuesError) as refused:
        check_values(over(MINIMAL, changes))
    message = str(refused.value)
    assert [part for part in wanted if part not in message] == [], message


def test_the_card_alone_is_enough_for_engines_of_others() -> None:
    values = over(read_values("external"), {"policy": {"cardConfigMap": ""}})
    with pytest.raises(HelmValuesError, match="/policy/pvc/claimName"):
        check_values(values)
    check_values(read_values("external"))


def test_nothing_but_words_of_kubernetes_is_free() -> None:
    """Every object of the schema refuses unknown keys, but for those that go to Kubernetes as they are."""
    free = set(open_objects(schema(), ()))
    as_they_are = {"global", "affinity", "extraEnv", "peer", "engineEgress", "variable"}
    assert {path for path in free if not set(path) & as_they_are} == set()


def open_objects(node: Any, path: tuple[str, ...]) -> Any:
    if isinstance(node, dict):
        if node.get("type") == "object" and "additionalProperties" not in node:
            yield path
        for key, below in node.items():
            yield from open_objects(below, (*path, key))
