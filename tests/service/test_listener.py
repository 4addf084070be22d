"""When a connection whose client reads nothing is broken off, and what the listener expects of uvicorn.

On a transport that only counts what waits to be written. Over real sockets: test_http_faults, test_limits and
test_connections.
"""

import ast
import asyncio
import inspect
import re
import tomllib
from collections.abc import Callable, Coroutine, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from preforch_service.listener import LimitedProtocol, ListenerConfig, Refused
from preforch_service.requests.limits import RequestLimits
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

IDLE = 0.1
GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = (
    b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\nx\r\n0\r\nTrailer: x\r\n\r\n"
)
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


class Transport(asyncio.Transport):
    """`waiting`: bytes that the client has not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.aborted = False
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.waiting += len(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
    await send({"type": "http.response.body", "body": b"x" * 1000})


async def never_ends(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.sleep(30)


async def opened(config: uvicorn.Config) -> tuple[HttpToolsProtocol, Transport]:
    """A connection as uvicorn opens it."""
    config.load()
    kind = config.http_protocol_class
    assert issubclass(kind, HttpToolsProtocol)
    protocol, transport = kind(config, ServerState(), {}), Transport()
    protocol.connection_made(transport)
    return protocol, transport


async def connected(app: Any) -> tuple[HttpToolsProtocol, Transport]:
    """A connection on which one request has been made."""
    protocol, transport = await opened(ListenerConfig(app, RequestLimits(), idle_timeout=IDLE))
    protocol.data_received(GET)
    await asyncio.sleep(0.01)
    return protocol, transport


def run(story: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


def test_an_idle_connection_is_kept_for_longer_than_clients_keep_one() -> None:
    """Over a real socket it would take longer than a test may."""
    assert ListenerConfig(answers, RequestLimits(), idle_timeout=IDLE).timeout_keep_alive > 90


def test_what_waits_and_is_not_taken_ends_the_connection() -> None:
    async def paused() -> None:
        protocol, transport = await connected(never_ends)
        transport.waiting = 100_000
        protocol.pause_writing()
        await asyncio.sleep(3 * IDLE)
        assert transport.aborted

    async def complete() -> None:
        _, transport = await connected(answers)
        assert transport.waiting > 1000
        await asyncio.sleep(3 * IDLE)
        assert transport.aborted

    run(paused())
    run(complete())


def test_a_client_that_takes_a_little_at_a_time_keeps_its_connection() -> None:
    async def story() -> None:
        protocol, transport = await connected(never_ends)
        transport.waiting = 100_000
        protocol.pause_writing()
        for _ in range(10):
            await asyncio.sleep(IDLE / 2)
            transport.waiting -= 10
        assert not transport.aborted
        await asyncio.sleep(3 * IDLE)
        assert transport.aborted

    run(story())


def test_what_is_written_while_the_client_reads_is_not_a_standstill() -> None:
    async def story() -> None:
        protocol, transport = await connected(never_ends)
        transport.waiting = 70_000
        protocol.pause_writing()
        transport.waiting = 10_000
        protocol.resume_writing()
        for _ in range(6):
            await asyncio.sleep(IDLE)
            transport.waiting += 5000
        assert not transport.aborted

    run(story())


def test_a_client_that_asks_again_is_not_measured_by_the_answer_before() -> None:
    async def story() -> None:
        protocol, transport = await connected(answers)
        transport.waiting = 0
        protocol.data_received(GET)
        await asyncio.sleep(0.01)
        transport.waiting = 0
        await asyncio.sleep(3 * IDLE)
        assert not transport.aborted

    run(story())


def test_a_rest_that_is_left_behind_after_the_answer_ends_the_connection() -> None:
    async def story() -> None:
        protocol, transport = await connected(answers)
        protocol.pause_writing()
        transport.waiting = 500
        protocol.resume_writing()
        await asyncio.sleep(3 * IDLE)
        assert transport.aborted

    run(story())


def test_what_follows_a_request_that_is_being_answered_is_neither_measured_nor_answered() -> None:
    async def story() -> None:
        protocol, transport = await connected(never_ends)
        waiting = transport.waiting
        protocol.data_received(b"GET /" + b"x" * 10 * RequestLimits().max_header_bytes)
        assert (transport.waiting, transport.is_closing()) == (waiting, False)

    run(story())


@pytest.mark.parametrize("package", ["uvicorn", "httptools"])
def test_the_minor_version_is_pinned_to_the_one_that_is_tested_here(package: str) -> None:
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    major, minor, *_ = metadata.version(package).split(".")
    for extra in ("service", "service-gpu"):
        assert f"{package}=={major}.{minor}.*" in extras[extra]


def unlimited(app: Any, kind: type[HttpToolsProtocol] = HttpToolsProtocol) -> uvicorn.Config:
    """uvicorn as it is."""
    return uvicorn.Config(app, http=kind, ws="none", log_config=None, lifespan="off")


OVERRIDDEN = sorted(name for name in vars(LimitedProtocol) if not name.startswith("_"))
REPLACED = {"parser"}


def test_every_method_that_is_overridden_is_uvicorns_and_nothing_else_shares_a_name() -> None:
    async def story() -> None:
        for name in OVERRIDDEN:
            ours, theirs = getattr(LimitedProtocol, name), getattr(HttpToolsProtocol, name)
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), (
                name
            )
        own, of_uvicorn = await names()
        assert not own & of_uvicorn

    run(story())


async def names() -> tuple[set[str], set[str]]:
    """What a connection has: of the listener alone, and of uvicorn."""
    (uvicorns, _), (ours, _) = await opened(unlimited(answers)), await connected(answers)
    of_uvicorn = {*dir(HttpToolsProtocol), *vars(uvicorns)}
    defined = {name for name in vars(LimitedProtocol) if name.startswith("_") and not name.startswith("__")}
    set_here = re.findall(r"^ +self\.(\w+) = ", inspect.getsource(LimitedProtocol), flags=re.MULTILINE)
    assert set(set_here) <= vars(ours).keys()
    return (defined | set(set_here)) - REPLACED, of_uvicorn


def test_all_the_state_that_is_read_is_there() -> None:
    async def story() -> None:
        protocol, _ = await opened(unlimited(never_ends))
        protocol.data_received(GET)
        own, _ = await names()
        read = {chain for chain in chains_from_self() if chain[0] not in own}
        assert ("cycle", "response_started") in read
        for chain in read:
            owner: object = protocol
            for name in chain:
                assert hasattr(owner, name), f"uvicorn has no {'.'.join(chain)}"
                owner = getattr(owner, name)
        await asyncio.sleep(0)

    run(story())


def chains_from_self() -> Iterator[tuple[str, ...]]:
    """`self.cycle.keep_alive` as (cycle, keep_alive), wherever the listener says so."""
    for node in ast.walk(ast.parse(inspect.getsource(LimitedProtocol))):
        if isinstance(node, ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            if first == "self":
                yield tuple(rest)


def test_uvicorn_calls_its_methods_in_the_order_that_is_counted_on() -> None:
    async def story() -> None:
        called: list[str] = []
        recorder = type(
            "Recorder", (HttpToolsProtocol,), {name: recording(name, called) for name in OVERRIDDEN}
        )
        protocol, _ = await opened(unlimited(answers, recorder))
        protocol.data_received(CHUNKED)
        await asyncio.sleep(0.01)
        head = ["on_message_begin", "on_header", "on_header", "on_headers_complete"]
        # The last header is the trailer.
        rest = ["on_body", "on_header", "on_message_complete", "on_response_complete"]
        assert called == ["connection_made", "data_received", *head, *rest]

    run(story())


def recording(name: str, called: list[str]) -> Callable[..., object]:
    """uvicorn's method, which says that it is called."""

    def method(self: HttpToolsProtocol, *arguments: object) -> object:
        called.append(name)
        return getattr(HttpToolsProtocol, name)(self, *arguments)

    return method


class Refuser(HttpToolsProtocol):
    """Ends each request in the middle of its head."""

    def on_headers_complete(self) -> None:
        raise Refused


def test_uvicorn_answers_what_a_callback_has_ended_and_closes_what_is_not_kept_alive() -> None:
    async def ended() -> None:
        protocol, transport = await opened(unlimited(answers, Refuser))
        protocol.data_received(GET)
        assert transport.waiting, "send_400_response has written something"

    async def not_kept_alive() -> None:
        protocol, transport = await opened(unlimited(answers))
        protocol.data_received(GET)
        protocol.cycle.keep_alive = False
        await asyncio.sleep(0.01)
        assert transport.closed

    run(ended())
    run(not_kept_alive())
