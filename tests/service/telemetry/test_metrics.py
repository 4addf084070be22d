"""Metrics have names as Prometheus wants them, labels of few values whatever clients send; they are right."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from fakes import RECOMMENDED, FakeRecommender, FakeUpstream, chunk, make_gateway, running, stream_answer
from preforch_models.bundle import Bundle
from preforch_models.objectives import Objective
from preforch_service.errors import ClientGone
from preforch_service.gateway import Gateway
from preforch_service.middleware.observer import Observation, Observer
from preforch_service.recommendation.weighing import Decision
from preforch_service.telemetry.metrics import Metrics
from processes import wait_until
from prometheus_client import generate_latest
from starlette.types import Message, Receive, Scope, Send

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
BASE_UNITS = ("milliseconds", "minutes", "hours", "kilobytes", "percent", "ms")


def series(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Values of a metric by its labels' values, `name` as in the exposition."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"preforch_{name}"
    }


def all_labels(metrics: Metrics) -> set[tuple[str, str, str]]:
    """Every label of every metric with every value that it has taken, buckets apart."""
    return {
        (family.name, label, value)
        for family in metrics.registry.collect()
        for sample in family.samples
        for label, value in sample.labels.items()
        if label != "le"
    }


@pytest.fixture
def gateway(bundle: Bundle) -> Gateway:
    return make_gateway(bundle, upstream=FakeUpstream())


def other_bundle(bundle: Bundle) -> Bundle:
    """A bundle with objectives of other names."""
    names = ("one", "two", "three")
    means = dict(zip(names, bundle.info.mean_weights.values(), strict=True))
    info = bundle.info.model_copy(
        update={"objectives": tuple(Objective(name=n, description=n) for n in names), "mean_weights": means}
    )
    return bundle.model_copy(update={"revision": "another", "info": info})


def wild(client: httpx.Client, number: int) -> None:
    """Requests in which everything that a client can choose is a new one."""
    word = f"wild{number}"
    client.get(f"/{word}/{number}?q={word}")
    client.request("DELETE", f"/v1/{word}")
    client.request("PATCH", "/weights", headers={"X-Request-Id": word})
    for path in ("/weights", "/generate", "/v1/chat/completions", "/v1/completions"):
        headers = (
            {"Host": word}
            if number % 3 == 0
            else {"Authorization": f"Bearer {word}", "X-Preference-Weights": word}
        )
        client.post(path, json={word: word}, headers=headers)
        client.post(path, content=word.encode(), headers={"Content-Type": word})
    client.post("/weights", json={"prompt": word, "weights": {word: 1}})
    client.post("/weights", json={"prompt": word, "weights": {"helpful": number / 50}})
    client.post("/v1/chat/completions", json=HELLO | {"model": word})
    client.post("/v1/chat/completions", json=HELLO | {"model": f"tiny@{word}=1"})
    client.post("/v1/chat/completions", json=HELLO | {"user": word, "preference_weights": [number, 1, 1]})
    client.post("/generate", json={"prompt": f"<W1> {word}"})


def request_with_method(url: str, method: str) -> None:
    """A request whose method no HTTP client sends."""
    parts = httpx.URL(url)
    with socket.create_connection((parts.host, parts.port or 80)) as sock:
        sock.sendall(f"{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while sock.recv(4096):
            pass


def test_wild_requests_do_not_make_labels(gateway: Gateway) -> None:
    with running(gateway) as url, httpx.Client(base_url=url, timeout=30) as client:
        wild(client, 0)
        wild(client, 1)
        request_with_method(url, "WILDMETHOD")
        before = all_labels(gateway.metrics)
        for number in range(2, 12):
            wild(client, number)
            request_with_method(url, f"WILDMETHOD{number}")
    labels = all_labels(gateway.metrics)
    assert labels == before
    assert not [entry for entry in labels if "wild" in str(entry).lower()]
    paths = {"/weights", "/generate", "/v1/chat/completions", "/v1/completions", "other"}
    assert {value for _, label, value in labels if label == "route"} == paths
    assert {value for _, label, value in labels if label == "objective"} == set(RECOMMENDED)


def test_names_units_and_help_are_as_prometheus_wants_them(gateway: Gateway) -> None:
    families = list(gateway.metrics.registry.collect())
    # The names of these are the same for all programs; prometheus_client gives them.
    processes = {family.name for family in families if family.name.startswith("process_")}
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= processes
    for family in families:
        if family.name in processes:
            continue
        assert family.name.startswith("preforch_")
        assert family.name == family.name.lower()
        assert len(family.documentation) > 10
        assert not family.documentation.endswith(".")
        words = family.name.split("_")
        assert not set(words) & set(BASE_UNITS)
        assert family.type not in words
        assert ("seconds" in words) <= (words[-1] == "seconds" and family.type in ("histogram", "gauge"))
        names = {sample.name for sample in family.samples if not sample.name.endswith("_created")}
        if family.type == "counter":
            assert names <= {f"{family.name}_total"}
        elif family.type == "gauge":
            assert words[-1] not in ("total", "count", "sum", "bucket")


def test_the_exposition_can_be_read(gateway: Gateway) -> None:
    text = generate_latest(gateway.metrics.registry).decode()
    assert "# HELP preforch_gateway_seconds " in text
    assert f'preforch_bundle_info{{preset="{gateway.bundles.current.bundle.info.preset}",' in text


def test_every_histogram_has_rising_buckets(gateway: Gateway) -> None:
    with running(gateway) as url:
        httpx.post(f"{url}/v1/chat/completions", json=HELLO)
    for family in gateway.metrics.registry.collect():
        bounds: dict[str, list[float]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                others = {name: value for name, value in sample.labels.items() if name != "le"}
                bounds.setdefault(str(others), []).append(float(sample.labels["le"]))
        for found in bounds.values():
            assert all(low < high for low, high in pairwise(found))


def test_a_chat_is_timed_until_the_engine_and_to_its_first_byte(bundle: Bundle) -> None:
    upstream = FakeUpstream()
    gateway = make_gateway(bundle, upstream=upstream)
    with running(gateway) as url:
        httpx.post(f"{url}/v1/chat/completions", json=HELLO)
        upstream.answer = lambda body: stream_answer(chunk("a"), b"data: [DONE]\n\n")
        httpx.post(
            f"{url}/v1/chat/completions", json=HELLO | {"stream": True, "preference_weights": [1, 1, 1]}
        )
        httpx.post(f"{url}/v1/chat/completions", json={})
    metrics = gateway.metrics
    assert series(metrics, "gateway_seconds_count") == {("orchestrator",): 1, ("user",): 1}
    assert series(metrics, "engine_first_byte_seconds_count") == {("false",): 1, ("true",): 1}
    assert series(metrics, "orchestrator_seconds_count") == {(): 1}
    assert series(metrics, "request_seconds_count") == {("/v1/chat/completions",): 3}
    assert series(metrics, "requests_total") == {
        ("/v1/chat/completions", "200"): 2,
        ("/v1/chat/completions", "400"): 1,
    }


def test_weights_are_counted_per_objective_and_fallbacks_are_not_recommendations(bundle: Bundle) -> None:
    recommender = FakeRecommender()
    gateway = make_gateway(bundle, recommender=recommender)
    with running(gateway) as url:
        httpx.post(f"{url}/weights", json={"inputs": ["a", "b"]})
        httpx.post(f"{url}/weights", json={"prompt": "a", "weights": [1, 1, 2]})
        recommender.error = RuntimeError()
        httpx.post(f"{url}/weights", json={"prompt": "a"})
    metrics = gateway.metrics
    assert series(metrics, "announced_weight_count") == {(name,): 4 for name in RECOMMENDED}
    assert series(metrics, "recommended_weight_count") == {(name,): 2 for name in RECOMMENDED}
    assert series(metrics, "recommended_weight_sum")["humor",] == pytest.approx(2 * RECOMMENDED["humor"])
    assert series(metrics, "decisions_total") == {("orchestrator",): 2, ("user",): 1, ("fallback",): 1}
    assert series(metrics, "fallbacks_total") == {("failed",): 1, ("late",): 0, ("overloaded",): 0}
    assert series(metrics, "recommendation_confidence_count") == {(): 2}


def test_series_that_alerts_watch_are_there_before_anything_happens() -> None:
    metrics = Metrics()
    assert set(series(metrics, "bundle_reloads_total")) == {("reloaded",), ("unchanged",), ("refused",)}
    assert set(series(metrics, "rejections_total")) == {
        ("generations",),
        ("weights",),
        ("engine",),
        ("draining",),
    }
    assert set(series(metrics, "upstream_failures_total")) == {
        ("unreachable",),
        ("broken",),
        ("late",),
        ("status",),
    }


def test_limits_are_shown_beside_what_they_limit(bundle: Bundle) -> None:
    metrics = make_gateway(
        bundle, upstream=FakeUpstream(), orchestrator_deadline=0.5, orchestrator_queue=7, max_waiting=0
    ).metrics
    assert series(metrics, "orchestrator_deadline_seconds") == {(): 0.5}
    assert series(metrics, "orchestrator_queue_limit") == {(): 7}
    assert series(metrics, "admission_waiting_limit") == {(): 0}


def test_drift_is_the_mean_of_recommendations_minus_that_of_training(bundle: Bundle) -> None:
    metrics = Metrics()
    metrics.use_bundle(bundle)
    assert set(series(metrics, "weight_drift").values()) == {0.0}
    means = bundle.info.mean_weights
    first, *_, last = bundle.names
    shifted = means | {first: means[first] + 0.1, last: means[last] - 0.1}
    for recommended in (means, shifted):
        metrics.weights.observe(bundle.revision, announced=means, recommended=recommended)
    metrics.weights.observe(bundle.revision, announced=means, recommended=None)
    assert series(metrics, "weight_drift")[first,] == pytest.approx(0.05)
    assert series(metrics, "weight_drift")[last,] == pytest.approx(-0.05)
    assert series(metrics, "weight_drift_prompts") == {(): 2}
    for _ in range(5 * metrics.weights.WINDOW):
        metrics.weights.observe(bundle.revision, announced=means, recommended=shifted)
    assert series(metrics, "weight_drift")[first,] == pytest.approx(0.1, abs=1e-3)


def test_another_bundle_takes_the_place_of_the_one_before(bundle: Bundle) -> None:
    metrics = Metrics()
    metrics.use_bundle(bundle)
    weights = bundle.info.mean_weights
    metrics.weights.observe(bundle.revision, announced=weights, recommended=weights)
    metrics.use_bundle(other_bundle(bundle))
    # An answer that was on its way when the bundle changed.
    metrics.weights.observe(bundle.revision, announced=weights, recommended=weights)
    for name in ("weight_drift", "announced_weight_count", "recommended_weight_count"):
        assert series(metrics, name) == {("one",): 0, ("two",): 0, ("three",): 0}
    assert [revision for _, label, revision in all_labels(metrics) if label == "revision"] == ["another"]
    assert series(metrics, "weight_drift_prompts") == {(): 0}


def test_a_client_that_leaves_a_stream_is_counted(bundle: Bundle) -> None:
    leave = threading.Event()
    upstream = FakeUpstream(answer=lambda body: stream_answer(chunk("a"), leave))
    gateway = make_gateway(bundle, upstream=upstream)
    with running(gateway) as url:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=HELLO | {"stream": True}) as response:
            next(response.iter_raw())
        assert wait_until(lambda: series(gateway.metrics, "cancellations_total")["answer",] == 1)
    leave.set()


@pytest.mark.parametrize("phase", ["reading", "waiting", "weights", "first_byte"])
def test_the_phase_in_which_a_client_leaves(phase: str) -> None:
    metrics = Metrics()
    body: list[Message] = [] if phase == "reading" else [{"type": "http.request", "body": b"{}"}]
    messages: Iterator[Message] = iter([*body, {"type": "http.disconnect"}])
    decision = Decision({}, "user", None, clamped={}, bundle="b")

    async def decide() -> list[Decision]:
        return [decision]

    async def receive() -> Message:
        return next(messages)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen: Observation = scope["state"]["observation"]
        if phase in ("weights", "first_byte"):
            await seen.track_decisions(decide())
        if phase == "first_byte":
            seen.asks_engine("/v1/completions")
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientGone

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope: Scope = {"type": "http", "path": "/weights", "method": "POST", "headers": []}
    with pytest.raises(ClientGone):
        asyncio.run(Observer(app, metrics=metrics, access_log=None, tracing=None)(scope, receive, send))
    assert {left: n for left, n in series(metrics, "cancellations_total").items() if n} == {(phase,): 1}
    assert series(metrics, "requests_total") == {("other", "499"): 1}
