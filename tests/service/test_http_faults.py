"""The HTTP surface when orchestrator, engine or client fail, when too much comes at once, and on shutdown."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import eq
from typing import Any

import httpx
import pytest
from fakes import CHAT, STREAMS, FakeAnswer, chunk, json_answer, stream_answer
from preforch_models.bundle import Bundle
from preforch_service.engine.upstream import UpstreamDown, UpstreamLate
from preforch_service.middleware.edge import InFlight
from preforch_service.recommendation.recommender import QueueFull
from processes import wait_until
from served import DONE, HELLO, Served, anthropic_error, error_of, serve

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": HELLO,
    "/v1/responses": {"input": "hello"},
    "/v1/messages": HELLO | {"max_tokens": 5},
}
EVENTS = {"/v1/chat/completions": (chunk("a"), chunk("b"), DONE), **STREAMS}
"""What an engine streams, by route."""


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle)


def test_a_late_or_broken_orchestrator_means_fallback_weights(bundle: Bundle) -> None:
    for served in serve(bundle, orchestrator_deadline=0.05):
        fallback = {"helpful": 0.5, "harmless": 0.33, "humor": 0.17}
        served.recommender.delay = 5
        late = served.chat().json()["preference"]
        assert (late["source"], late["reason"], late["recommended"]) == ("fallback", "late", None)
        assert late["weights"] == fallback
        served.recommender.delay, served.recommender.error = 0, RuntimeError("broken")
        broken = served.chat().json()["preference"]
        assert (broken["source"], broken["reason"], broken["weights"]) == ("fallback", "failed", fallback)
        served.recommender.error = QueueFull("256 requests wait")
        overloaded = served.chat().json()["preference"]
        assert (overloaded["source"], overloaded["reason"]) == ("fallback", "overloaded")
        served.recommender.error = RuntimeError("broken")
        pinned = served.chat(preference_weights={"humor": 0.5}).json()["preference"]
        assert (pinned["source"], pinned["weights"]["humor"]) == ("fallback", 0.5)
        weights = served.post("/weights", {"prompt": "x"}).json()
        assert (weights["source"], weights["reason"], weights["confidence"]) == ("fallback", "failed", None)


def test_a_stream_that_breaks_off_ends_with_an_error_event(served: Served) -> None:
    gone = UpstreamDown("gone", reason="broken")
    served.upstream.answer = lambda body: stream_answer(chunk("a"), b'data: {"half', gone)
    for path, body in (
        ("/v1/chat/completions", HELLO | {"stream": True}),
        ("/generate", {"prompt": "x", "stream": True}),
    ):
        # The answer before has put the engine down.
        assert asyncio.run(served.gateway.readiness.check())
        *_, error, done, nothing = served.post(path, body).content.split(b"\n\n")
        assert (done + b"\n\n", nothing) == (DONE, b"")
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "engine_down"


def test_errors_of_the_engine_pass_through(served: Served) -> None:
    wrong = {
        "error": {"message": "max_tokens", "type": "BadRequestError", "param": "max_tokens", "code": 400}
    }
    served.upstream.answer = lambda body: json_answer(wrong, status=400)
    for response in (served.chat(max_tokens=-1), served.post("/generate", {"prompt": "x", "max_tokens": -1})):
        assert (response.status_code, response.json()) == (400, wrong)


def test_a_dead_engine_is_a_503_until_it_is_back(served: Served) -> None:
    served.upstream.down = True
    response = served.chat()
    assert error_of(response, 503)["code"] == "engine_down"
    assert response.headers["Retry-After"]
    assert served.client.get("/readyz").status_code == 503
    assert served.post("/weights", {"prompt": "x"}).status_code == 200
    assert error_of(served.client.get("/v1/models"), 503)["code"] == "engine_down"


def test_an_engine_whose_core_has_died_is_a_503(served: Served) -> None:
    def dying(body: dict[str, Any]) -> FakeAnswer:
        served.upstream.health = 503
        return json_answer({"error": {"message": "EngineDeadError"}}, status=500)

    served.upstream.answer = dying
    assert error_of(served.chat(), 503)["code"] == "engine_down"


def test_an_engine_that_dies_while_answering_is_a_503(served: Served) -> None:
    served.upstream.answer = lambda body: FakeAnswer([b'{"id"', UpstreamDown("gone", reason="broken")])
    assert error_of(served.chat(), 503)["code"] == "engine_down"


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_leaves_stops_the_generation(served: Served, path: str) -> None:
    never = threading.Event()
    answer, streamed = FakeAnswer([b"{", never]), stream_answer(EVENTS[path][0], never)
    served.upstream.answer = lambda body: streamed if body.get("stream") else answer
    with pytest.raises(httpx.ReadTimeout):
        served.client.post(path, json=BODIES[path], timeout=0.5)
    assert answer.closed.wait(5)
    with served.client.stream("POST", path, json=BODIES[path] | {"stream": True}) as response:
        next(response.iter_bytes())
    assert streamed.closed.wait(5)
    assert not never.is_set()


def becomes(served: Served, value: float, metric: str, **labels: str) -> bool:
    """Whether a metric gets to a value in time."""
    registry = served.gateway.metrics.registry
    return wait_until(lambda: registry.get_sample_value(metric, labels) == value)


def test_a_client_that_leaves_before_its_weights_are_there_never_reaches_the_engine(served: Served) -> None:
    served.recommender.delay = 1.5
    with pytest.raises(httpx.ReadTimeout):
        served.client.post("/v1/chat/completions", json=HELLO, timeout=0.5)
    assert becomes(served, 1, "preforch_cancellations_total", phase="weights")
    assert wait_until(lambda: served.gateway.in_flight.count == 0)
    assert served.upstream.bodies == []


def paused_stream(go_on: threading.Event, body: dict[str, Any]) -> FakeAnswer:
    first, *others = EVENTS[body["path"]]
    return stream_answer(first, go_on, *others)


@contextmanager
def paused(served: Served, path: str) -> Iterator[threading.Event]:
    """A stream that has begun, and the event that lets it go on; at the end it has come whole."""
    go_on = threading.Event()
    served.upstream.answer = partial(paused_stream, go_on)
    with served.client.stream("POST", path, json=BODIES[path] | {"stream": True}) as response:
        pieces = response.iter_bytes()
        assert b'"preference"' in next(pieces)
        yield go_on
        go_on.set()
        assert b"".join(pieces) == b"".join(EVENTS[path][1:])


def check_told_to_come_back(served: Served, path: str, status: int, why: str) -> None:
    """A request is refused in the shape of its format, for now."""
    refused = served.post(path, BODIES.get(path, {"prompt": "x"}))
    shaped = anthropic_error if path == "/v1/messages" else error_of
    assert why in shaped(refused, status)["message"]
    assert int(refused.headers["Retry-After"]) > 0


@pytest.mark.parametrize("path", BODIES)
def test_more_than_may_wait_are_a_429_and_who_leaves_the_line_frees_its_place(
    bundle: Bundle, path: str
) -> None:
    for served in serve(bundle, max_running=1, max_waiting=1):
        with paused(served, path):
            with pytest.raises(httpx.ReadTimeout):
                served.client.post(path, json=BODIES[path], timeout=0.5)
            assert becomes(served, 1, "preforch_cancellations_total", phase="waiting")
            waiting = threading.Thread(target=served.post, args=(path, BODIES[path] | {"stream": True}))
            waiting.start()
            assert becomes(served, 1, "preforch_admission_waiting")
            for other in (path, "/generate"):
                check_told_to_come_back(served, other, 429, "too many requests: 1 are running")
            assert becomes(served, 2, "preforch_rejections_total", reason="generations")
        waiting.join()
        assert len(served.upstream.bodies) == 2


def test_weights_are_bounded_too(bundle: Bundle) -> None:
    for served in serve(bundle, max_weights=1):
        served.recommender.delay = 1
        first = threading.Thread(target=served.post, args=("/weights", {"prompt": "x"}))
        first.start()
        assert wait_until(partial(eq, served.recommender.texts, ["x"]))
        assert error_of(served.post("/weights", {"prompt": "y"}), 429)["code"] == "overloaded"
        first.join()
        assert served.post("/weights", {"prompt": "z"}).status_code == 200


def test_a_full_queue_of_the_engine_is_a_429(served: Served) -> None:
    served.upstream.answer = lambda body: json_answer({"error": {"message": "queue"}}, status=503)
    assert error_of(served.chat(), 429)["code"] == "overloaded"
    for path in (*BODIES, "/generate"):
        check_told_to_come_back(served, path, 429, "the engine's queue is full")


def test_an_engine_that_is_late_is_a_504(served: Served) -> None:
    def late(body: dict[str, Any]) -> FakeAnswer:
        raise UpstreamLate("the engine sent nothing for 600 s")

    served.upstream.answer = late
    error = error_of(served.chat(), 504)
    assert (error["code"], error["message"]) == ("engine_timeout", "the engine sent nothing for 600 s")
    served.upstream.answer = lambda body: stream_answer(
        chunk("a"), UpstreamLate("the engine sent nothing more")
    )
    *_, last, _done, _ = served.chat(stream=True).content.split(b"\n\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_timeout"


@pytest.mark.parametrize("path", BODIES)
def test_draining_refuses_new_requests_and_lets_streams_finish(served: Served, path: str) -> None:
    with paused(served, path):
        served.gateway.readiness.draining = True
        assert served.client.get("/readyz").status_code == 503
        assert served.client.get("/livez").status_code == 200
        assert error_of(served.post("/weights", {"prompt": "x"}), 503)["code"] == "draining"
        for other in (path, "/weights"):
            check_told_to_come_back(served, other, 503, "the gateway is shutting down")


ASK = json.dumps(HELLO | {"stream": True}).encode()
ASKING = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(ASK) + ASK
)
# More than all buffers on the way hold.
MUCH = 20_000_000


def connected(served: Served) -> socket.socket:
    return socket.create_connection(
        (served.client.base_url.host, served.client.base_url.port or 0), timeout=20
    )


@pytest.mark.parametrize(
    "parts",
    [
        (*[chunk("x" * 1_000_000)] * 50, threading.Event()),
        (chunk("x" * MUCH), threading.Event()),
        (chunk("x" * MUCH),),
        (chunk("x" * MUCH), UpstreamDown("broken", reason="broken")),
    ],
    ids=["many pieces", "one piece", "the last piece", "an error after it"],
)
def test_a_client_that_never_reads_loses_its_place(bundle: Bundle, parts: tuple[Any, ...]) -> None:
    answer = stream_answer(*parts)
    for served in serve(bundle, idle_timeout=1, max_running=1):
        served.upstream.answer = lambda body: answer
        with connected(served) as sock:
            sock.sendall(ASKING)
            assert answer.closed.wait(10)
            served.upstream.answer = lambda body: json_answer(CHAT)
            # One of the answers has put the engine down.
            assert asyncio.run(served.gateway.readiness.check())
            assert served.chat().status_code == 200, "its place is free again"


def test_a_client_that_reads_slowly_gets_everything(bundle: Bundle) -> None:
    answer = stream_answer(chunk("x" * MUCH), DONE)
    for served in serve(bundle, idle_timeout=1):
        served.upstream.answer = lambda body: answer
        with connected(served) as sock:
            sock.sendall(ASKING)
            end, started = b"", time.monotonic()
            while not end.endswith(b"0\r\n\r\n"):
                time.sleep(0.2)
                piece = sock.recv(1_500_000)
                assert piece, "the gateway has hung up"
                end = (end + piece)[-5:]
            assert time.monotonic() - started > 2, "longer than idle_timeout"


def test_an_answer_of_any_kind_that_is_not_read_ends_the_connection(bundle: Bundle) -> None:
    for served in serve(bundle, idle_timeout=1):
        served.upstream.answer = lambda body: json_answer(CHAT | {"x": "x" * MUCH})
        with connected(served) as sock:
            sock.sendall(ASKING)
            time.sleep(4)
            # What the kernel's buffers held; without a timer the rest would follow now.
            assert sum(map(len, iter(lambda: sock.recv(1_000_000), b""))) < MUCH


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_noticed_after_a_second_request(bundle: Bundle, stream: bool) -> None:
    never: list[bytes | Exception | threading.Event] = [chunk("a"), threading.Event()]
    answer = stream_answer(*never) if stream else FakeAnswer(never)
    for served in serve(bundle):
        served.upstream.answer = lambda body: answer
        with connected(served) as sock:
            sock.sendall(ASKING + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert wait_until(partial(bool, served.upstream.bodies))
        assert answer.closed.wait(10)


def test_models_of_an_engine_that_says_nothing_are_waited_for_a_while_and_by_nobody_who_has_left(
    bundle: Bundle,
) -> None:
    for served in serve(bundle, health_timeout=1):
        served.upstream.silent = True
        assert error_of(served.client.get("/v1/models"), 504)["code"] == "engine_timeout"
        with pytest.raises(httpx.ReadTimeout):
            served.client.get("/v1/models", timeout=0.2)
        assert wait_until(partial(eq, served.gateway.in_flight, InFlight(0)), 0.7)
