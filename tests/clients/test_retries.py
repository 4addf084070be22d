"""What the clients send again, and what they never do: over real sockets to a server that plays faults."""

import asyncio
import socket
import time
from collections.abc import Iterable

import httpx
import pytest
from preforch_client import (
    AsyncClient,
    BadRequest,
    ChatChunk,
    Client,
    PreferenceError,
    ServiceFailed,
    ServiceUnavailable,
    ServiceUnreachable,
)
from preforch_client.retries import JITTER, LONGEST_DELAY, LONGEST_RETRY_AFTER, Tries, delay, retry_after
from scripted_server import answer, head, scripted_server

BUSY = answer("503 Service Unavailable", {"error": {"message": "draining"}}, Retry_After="0")
HELLO = [{"role": "user", "content": "Hello"}]
STREAM = head("200 OK", {"Content-Type": "text/event-stream"})
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "Wa"}}]}\n\n'


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests that wait do so for milliseconds."""
    monkeypatch.setattr("preforch_client.retries.FIRST_DELAY", 0.01)


@pytest.mark.parametrize(
    "fault",
    [BUSY, answer("429 Too Many Requests", {}), b"", b"HTTP/1.1 20"],
    ids=["503", "429", "hangs up", "breaks off in the head"],
)
def test_what_has_no_answer_yet_is_sent_again_by_both_clients(fault: bytes) -> None:
    async def ask(url: str) -> str:
        async with AsyncClient(url) as client:
            return (await client.weights("Hello")).bundle

    with scripted_server(fault, fault, answer()) as server, Client(server.url) as client:
        assert client.weights("Hello").bundle == "abc"
    with scripted_server(fault, fault, answer()) as other:
        assert asyncio.run(ask(other.url)) == "abc"
    assert server.bodies == other.bodies == [b'{"prompt":"Hello"}'] * 3


def test_a_stream_is_sent_again_until_it_begins() -> None:
    with scripted_server(BUSY, STREAM + EVENT + b"data: [DONE]\n\n") as server, Client(server.url) as client:
        assert [chunk.text for chunk in client.chat(HELLO, stream=True)] == ["Wa"]
    assert len(server.bodies) == 2


@pytest.mark.parametrize("sent", [STREAM, STREAM + EVENT], ids=["before", "after"])
def test_a_stream_that_has_begun_is_never_sent_again(sent: bytes) -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            async for _ in await client.chat(HELLO, stream=True):
                pass

    with scripted_server(sent) as server:
        with pytest.raises(ServiceUnreachable, match="broke off"), Client(server.url) as client:
            read(client.chat(HELLO, stream=True))
        with pytest.raises(ServiceUnreachable, match="broke off"):
            asyncio.run(ask(server.url))
    assert len(server.bodies) == 2


def read(chunks: Iterable[ChatChunk]) -> list[str]:
    return [chunk.text for chunk in chunks]


def test_an_answer_that_breaks_off_is_not_asked_for_again() -> None:
    with (
        scripted_server(answer()[:-5]) as server,
        Client(server.url) as client,
        pytest.raises(ServiceUnreachable),
    ):
        client.weights("Hello")
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (answer("400 Bad Request", {}), BadRequest),
        (answer("500 Internal Server Error", {}), ServiceFailed),
        (answer("504 Gateway Timeout", {}), ServiceFailed),
        (answer("503 Service Unavailable", {}, Retry_After="61"), ServiceUnavailable),
    ],
    ids=["400", "500", "504", "503 for longer than anyone waits"],
)
def test_other_answers_stand(fault: bytes, kind: type[PreferenceError]) -> None:
    with scripted_server(fault) as server, Client(server.url) as client, pytest.raises(kind):
        client.weights("Hello")
    assert len(server.bodies) == 1


@pytest.mark.parametrize(("retries", "sent"), [(0, 1), (1, 2), (2, 3)])
def test_there_are_so_many_tries_and_then_the_error_of_the_last(retries: int, sent: int) -> None:
    with (
        scripted_server(BUSY) as server,
        Client(server.url, max_retries=retries) as client,
        pytest.raises(ServiceUnavailable, match="draining") as caught,
    ):
        client.weights("Hello")
    assert (len(server.bodies), caught.value.retry_after) == (sent, 0.0)


def test_a_request_that_waits_in_vain_is_not_sent_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(0.2)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(url, timeout=0.1) as client,
            pytest.raises(ServiceUnreachable, match="in time"),
        ):
            client.weights("Hello")
        connections = [silent.accept()[0]]
        with connections[0], pytest.raises(TimeoutError):
            silent.accept()


def test_readiness_is_asked_once() -> None:
    with scripted_server(BUSY) as server, Client(server.url) as client:
        assert not client.ready()
    assert len(server.bodies) == 1


def test_a_server_is_left_alone_for_as_long_as_it_asks() -> None:
    busy = answer("429 Too Many Requests", {}, Retry_After="0.5")
    with scripted_server(busy, answer()) as server, Client(server.url) as client:
        began = time.monotonic()
        client.weights("Hello")
    assert 0.5 <= time.monotonic() - began < 5


def test_a_negative_number_of_retries_is_refused() -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(ValueError, match="max_retries is -1; it must be 0 or more"):
            make(max_retries=-1)


def test_delays_double_up_to_a_bound_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preforch_client.retries.FIRST_DELAY", 0.5)
    for retry, least in [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (9, LONGEST_DELAY), (9999, LONGEST_DELAY)]:
        drawn = [delay(retry) for _ in range(200)]
        assert least <= min(drawn) < max(drawn) <= least * (1 + JITTER)
    assert 3.0 <= delay(1, 3.0) <= 3.0 * (1 + JITTER)
    assert delay(3, 0.1) >= 2.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        *((wrong, None) for wrong in ("", "soon", "-1", "nan", "inf", "Wed, 99 Oct 2015 07:28:10 GMT")),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_by_the_servers_clock(
    value: str, seconds: float | None
) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert retry_after(httpx.Headers({"Retry-After": value, "Date": date})) == seconds


def test_a_date_without_a_servers_clock_is_taken_by_ours() -> None:
    assert retry_after(httpx.Headers({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})) == 0.0
    later = retry_after(httpx.Headers({"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}))
    assert later is not None
    assert later > LONGEST_RETRY_AFTER
    tries = Tries(5)
    far = httpx.Response(503, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"})
    assert tries.wait_after_answer(far) is None
