"""What the chart renders, started: gateway and real vLLM, with the rendered commands, mounts and probes."""

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from chart import Manifest, Values, container, named, pods, render
from kubelet import Kubelet
from preforch_models.bundle import read_bundle
from preforch_service.keygen import entry, new_key
from processes import wait_until

pytestmark = pytest.mark.deploy

DRAIN = 60
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
LONG = {**CHAT, "max_tokens": 2000, "stream": True, "ignore_eos": True}


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Cluster:
    """Volumes with what they hold, the key that is in the Secret, and the ports."""

    volumes: dict[str, Path]
    key: str
    values: Values

    def kubelet(self, mode: str, end: str = "-gateway") -> Kubelet:
        """A pod of the chart, in a mode."""
        manifests = render({**self.values, "mode": mode})
        names = {
            "rel-preference-orchestrator-engine": "127.0.0.1",
            "rel-preference-orchestrator-gateway": "127.0.0.1",
        }
        pod = (
            pods(manifests)[-1] if end == "-test" else named(manifests, "Deployment", end)["spec"]["template"]
        )
        self.check_secret(pod)
        return Kubelet(pod, self.volumes, names)

    def check_secret(self, pod: Manifest) -> None:
        """Give the key file the rendered name and mode."""
        for volume in pod["spec"].get("volumes", []):
            if volume["name"] == "api-keys":
                (item,) = volume["secret"]["items"]
                file = self.volumes["api-keys"] / item["path"]
                file.chmod(volume["secret"]["defaultMode"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.values['gateway']['port']}"

    def post(self, body: dict[str, Any], **headers: str) -> httpx.Response:
        given = {"Authorization": f"Bearer {self.key}", **headers}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=given, timeout=60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    root = tmp_path_factory.mktemp("volumes")
    names = ("bundle", "policy", "api-keys", "engine", "shm", "tmp", "engine-tmp")
    volumes = {name: root / name for name in names}
    for folder in volumes.values():
        folder.mkdir()
    bundle = read_bundle(tiny.write_bundle(volumes["bundle"] / "monday"))
    tiny.write_policy(volumes["policy"] / "wic", bundle.info.context, max_model_len=4096)
    key = new_key()
    (volumes["api-keys"] / "keys.toml").write_text(entry("alice", key), encoding="utf-8")
    port = free_port()
    values: Values = {
        "drainSeconds": DRAIN,
        # The Service passes its port on to that of the pods; here both are one.
        "service": {"port": port},
        "auth": {"secretName": "keys"},
        "bundle": {"path": "monday", "pvc": {"claimName": "bundles"}},
        "policy": {"path": "wic", "pvc": {"claimName": "policies"}},
        "gateway": {"port": port, "metricsPort": free_port(), "allowedHosts": ["pro.example"]},
        "engine": {"accelerator": "cpu", "port": free_port()},
    }
    return Cluster(volumes, key, values)


@dataclass(frozen=True)
class Engine:
    """The engine of an all-in-one pod, which that of a split installation is too but for its address."""

    process: subprocess.Popen[bytes]
    log: Path


@pytest.fixture(scope="module")
def engine(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    kubelet = cluster.kubelet("allInOne")
    log = tmp_path_factory.mktemp("engine") / "log"
    arguments = json.loads(kubelet.run("engine-args"))
    assert json.loads((cluster.volumes["engine"] / "arguments.json").read_text(encoding="utf-8")) == arguments
    with kubelet.running("engine", log) as process:
        yield Engine(process, log)


@contextmanager
def gateway(cluster: Cluster, engine: Engine, mode: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway that has become ready, as its probes tell."""
    kubelet = cluster.kubelet(mode)
    with kubelet.running("gateway", log) as process:
        assert wait_until(lambda: kubelet.probe("gateway", "startup"), 60), log.read_text()
        assert kubelet.probe("gateway", "liveness")
        assert wait_until(lambda: kubelet.probe("gateway", "readiness"), 600), (
            log.read_text(),
            engine.log.read_text(),
        )
        yield process


def grace(pod: Manifest) -> int:
    """Seconds from SIGTERM to SIGKILL: the grace period runs from the beginning of preStop."""
    pauses = {int(each["lifecycle"]["preStop"]["sleep"]["seconds"]) for each in pod["spec"]["containers"]}
    return int(pod["spec"]["terminationGracePeriodSeconds"]) - max(pauses)


def chunks(response: httpx.Response) -> Iterator[Any]:
    """The events of a stream."""
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def test_a_split_installation_serves_and_drains(cluster: Cluster, engine: Engine, tmp_path: Path) -> None:
    kubelet = cluster.kubelet("split")
    with gateway(cluster, engine, "split", tmp_path / "log") as process:
        answer = cluster.post({**CHAT, "max_tokens": 4}, Host="rel-preference-orchestrator-gateway.pro.svc")
        assert answer.status_code == 200, answer.text
        assert answer.json()["preference"]["source"] == "orchestrator"
        assert cluster.post({**CHAT, "max_tokens": 4}, Host="pro.example").status_code == 200
        assert cluster.post(CHAT, Host="elsewhere.example").status_code == 400
        assert cluster.post(CHAT, Authorization="Bearer wrong").status_code == 401
        metrics = httpx.get(f"http://127.0.0.1:{kubelet.port('gateway', 'metrics')}/metrics").text
        assert "preforch_ready 1.0" in metrics
        assert "ready" in cluster.kubelet("split", "-test").run("ready"), "the pod of helm test"
        drains(cluster, [process], within=grace(kubelet.pod))


def test_an_all_in_one_pod_serves_and_both_of_it_drain_at_once(
    cluster: Cluster, engine: Engine, tmp_path: Path
) -> None:
    kubelet = cluster.kubelet("allInOne")
    with gateway(cluster, engine, "allInOne", tmp_path / "log") as process:
        assert all(kubelet.probe("engine", kind) for kind in ("startup", "liveness", "readiness"))
        drains(cluster, [process, engine.process], within=grace(kubelet.pod))
        assert not kubelet.probe("engine", "liveness")


def drains(cluster: Cluster, processes: list[subprocess.Popen[bytes]], *, within: float) -> None:
    """SIGTERM during an answer: it is finished, new requests are refused, and all end in time."""
    headers = {"Authorization": f"Bearer {cluster.key}"}
    # Made before, since a client takes long to make, and the answer must last until all has been seen.
    with (
        httpx.Client(base_url=cluster.url, headers=headers, timeout=60) as client,
        client.stream("POST", "/v1/chat/completions", json=LONG) as stream,
    ):
        assert stream.status_code == 200
        events = chunks(stream)
        next(events)
        begun = time.monotonic()
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: client.get("/readyz").status_code == 503, 5)
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 503
        last = list(events)[-1]
        assert last["choices"][0]["finish_reason"] == "length", last
    for process in processes:
        process.wait(timeout=within)
    assert time.monotonic() - begun < within
    assert processes[0].returncode == 0


def test_the_split_engine_differs_by_its_address_alone(cluster: Cluster, tmp_path: Path) -> None:
    made = {}
    for mode, end in (("allInOne", "-gateway"), ("split", "-engine")):
        kubelet = cluster.kubelet(mode, end)
        made[mode] = json.loads(kubelet.run("engine-args"))
        one = container(kubelet.pod, "engine")
        assert one["command"] == ["python3", "-c"]
    place = made["split"].index("--host")
    assert made["allInOne"][place + 1] == "127.0.0.1"
    made["allInOne"][place + 1] = "0.0.0.0"
    assert made["allInOne"] == made["split"]


def test_a_key_file_that_everyone_reads_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    copied = {**cluster.volumes, "api-keys": tmp_path / "keys"}
    shutil.copytree(cluster.volumes["api-keys"], copied["api-keys"])
    (copied["api-keys"] / "keys.toml").chmod(0o444)
    kubelet = Kubelet(cluster.kubelet("split").pod, copied, {})
    with kubelet.running("gateway", tmp_path / "log") as process:
        assert process.wait(timeout=60) == 2
    assert "can be read by everyone" in (tmp_path / "log").read_text()
