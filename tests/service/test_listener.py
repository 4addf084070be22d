"""When a connection whose client reads nothing is broken off, on a transport that only counts what waits to be written.

Over real sockets: test_http_faults and test_request_limits.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from preforch_service.listener import listener_config
from preforch_service.requests.limits import RequestLimits
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

IDLE = 0.1
GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Transport(asyncio.Transport):
    """`waiting`: bytes that the client has not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.waiting += len(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.aborted

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


async def connected(app: Any) -> tuple[HttpToolsProtocol, Transport]:
    """A connection on which one request has been made."""
    config = listener_config(app, RequestLimits(), idle_timeout=IDLE)
    config.load()
    kind = config.http_protocol_class
    assert issubclass(kind, HttpToolsProtocol)
    protocol, transport = kind(config, ServerState(), {}), Transport()
    protocol.connection_made(transport)
    protocol.data_received(GET)
    await asyncio.sleep(0.01)
    return protocol, transport


def run(story: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


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


def test_what_is_written_while_the_client_reads_is_no_standstill() -> None:
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
