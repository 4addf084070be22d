"""What docker-compose.yaml starts, started: gateway, arguments for the engine, vLLM.

They answer, and stop in time.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from composition import Composition, Service, read_composition
from container import Container, running
from image import Image
from preforch_service.keys import digest_of
from sandbox import machine_environment

pytestmark = pytest.mark.deploy

KEY = "a-key-that-is-used-in-this-test-alone"
URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Started:
    """The running gateway and engine."""

    gateway: Container
    engine: Container
    arguments: list[str]


@pytest.fixture(scope="module")
def composition() -> Composition:
    return read_composition()


@pytest.fixture(scope="module")
def places(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the compose file mounts, by its place."""
    folder = tmp_path_factory.mktemp("compose")
    keys = folder / "keys.toml"
    keys.write_text(f'[[keys]]\nname = "alice"\nsha256 = "{digest_of(KEY)}"\n', encoding="utf-8")
    keys.chmod(0o600)
    (folder / "engine").mkdir()
    # One network stands for all: the names of services mean this machine.
    (folder / "hosts").write_text("127.0.0.1 localhost gateway engine\n", encoding="utf-8")
    return {
        "/data/bundle": run_folder / "bundle",
        "/data/policy": run_folder / "policy" / "wic" / "round-0",
        "/engine": folder / "engine",
        "/run/secrets/api-keys": keys,
        "/etc/hosts": folder / "hosts",
    }


def configured(image: Image, service: Service) -> Image:
    """An image as a service overrides it."""
    entrypoint = image.entrypoint if service.entrypoint is None else tuple(service.entrypoint)
    return replace(
        image, user=service.user, entrypoint=entrypoint, environment=image.environment | service.environment
    )


def mounted(service: Service, places: dict[str, Path], *, read_only: bool) -> dict[str, Path]:
    """The mounts of a service: read-only ones and secrets, or the others."""
    targets = [mount.target for mount in service.volumes if mount.read_only == read_only]
    secrets = [f"/run/secrets/{name}" for name in service.secrets] if read_only else []
    return {target: places[target] for target in [*targets, *secrets]}


def write_arguments(image: Image, service: Service, places: dict[str, Path], log: Path) -> list[str]:
    with running(
        configured(image, service),
        service.command,
        mounts=mounted(service, places, read_only=True),
        writable=mounted(service, places, read_only=False),
        log=log,
    ) as once:
        assert once.sandbox.wait(60) == 0, once.said()
    return [
        str(word) for word in json.loads((places["/engine"] / "arguments.json").read_text(encoding="utf-8"))
    ]


def vllm_image(folder: Path) -> Image:
    """This machine's vLLM in place of the engine's image."""
    environment = machine_environment()
    environment["PATH"] = f"{sys.prefix}/bin:{environment['PATH']}"
    return Image(files=folder, base="", environment=environment, stopsignal="SIGTERM")


def python_folders() -> dict[str, Path]:
    """Where this Python's packages lie."""
    found = {sys.prefix, *(folder for folder in sys.path if folder.endswith("site-packages"))}
    return {folder: Path(folder) for folder in found if not folder.startswith(sys.base_prefix)}


@pytest.fixture(scope="module")
def started(
    gateway_image: Image,
    composition: Composition,
    places: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Started]:
    logs = tmp_path_factory.mktemp("logs")
    gateway, engine = composition.services["gateway"], composition.services["engine-cpu"]
    arguments = write_arguments(
        gateway_image, composition.services["engine-arguments-cpu"], places, logs / "arguments"
    )
    hosts = {"/etc/hosts": places["/etc/hosts"]}
    image = configured(gateway_image, gateway)
    (logs / "vllm").mkdir()
    with (
        running(
            image,
            gateway.command,
            mounts=mounted(gateway, places, read_only=True) | hosts,
            log=logs / "gateway",
        ) as first,
        running(
            configured(vllm_image(logs / "vllm"), engine),
            engine.command,
            mounts=mounted(engine, places, read_only=True) | hosts | python_folders(),
            scratch=[entry.partition(":")[0] for entry in engine.tmpfs],
            log=logs / "engine",
            network_of=first,
        ) as second,
    ):
        assert first.healthy(image.healthcheck, seconds=400), first.said() + second.said()[-4000:]
        yield Started(first, second, arguments)


def chat(started: Started, weights: dict[str, float] | None = None) -> dict[str, Any]:
    body: dict[str, object] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4,
    }
    if weights is not None:
        body["preference_weights"] = weights
    headers = {"Authorization": f"Bearer {KEY}"}
    status, answer = started.gateway.request("POST", f"{URL}/v1/chat/completions", body, headers)
    assert status == 200, answer
    found: dict[str, Any] = json.loads(answer)
    return found


def test_a_chat_goes_through_gateway_and_engine(started: Started) -> None:
    answer = chat(started, {"helpful": 0.5, "harmless": 0.25, "humor": 0.25})
    assert answer["choices"]
    assert answer["preference"]["source"] == "user"
    assert chat(started)["preference"]["source"] == "orchestrator"


def test_without_a_key_nobody_is_answered(started: Started) -> None:
    assert started.gateway.request("POST", f"{URL}/weights", {"prompt": "Hello"})[0] == 401


def test_prometheus_finds_the_metrics_of_both(started: Started) -> None:
    assert "preforch_requests_total" in started.gateway.request("GET", "http://gateway:8001/metrics")[1]
    assert "vllm:" in started.gateway.request("GET", "http://engine:8100/metrics")[1]


def test_the_engines_health_check_passes(started: Started, composition: Composition) -> None:
    check = composition.services["engine-cpu"].healthcheck
    assert check is not None
    done = started.engine.execute(check.test[1:])
    assert done.returncode == 0, done.stderr


def test_both_stop_within_their_grace(started: Started, composition: Composition) -> None:
    for container, name in ((started.gateway, "gateway"), (started.engine, "engine-cpu")):
        grace = float(composition.services[name].stop_grace_period.removesuffix("s"))
        assert container.stop(seconds=grace) == 0, container.said()[-2000:]
