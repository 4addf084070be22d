"""The client of the engine survives connections that the engine has closed, and says so when it is gone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from preforch_service.engine.upstream import (
    CONNECT_TIMEOUT,
    AiohttpUpstream,
    UpstreamDown,
    UpstreamLate,
    read_all,
)

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Engine:
    """Answers `per_connection` requests on each connection, then closes it: at the next one, or at once."""

    def __init__(self, per_connection: int, *, answer: bytes = ANSWER, lingers: bool = True) -> None:
        self.per_connection = per_connection
        self.answer = answer
        self.lingers = lingers
        self.requests = 0
        self.heads: list[bytes] = []
        self.gone = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for left in range(self.per_connection, -1, -1):
            if not (left or self.lingers) or not await self._read(reader):
                break
            self.requests += 1
            if left:
                writer.write(self.answer)
                await writer.drain()
        self.gone.set()
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bool:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError:
            return False
        return True


@asynccontextmanager
async def connected(engine: Engine, path: Path) -> AsyncIterator[AiohttpUpstream]:
    upstream = AiohttpUpstream("http://engine", socket=path)
    async with await asyncio.start_unix_server(engine.handle, path):
        try:
            yield upstream
        finally:
            await upstream.close()


def test_a_stale_connection_is_tried_again_once(tmp_path: Path) -> None:
    async def check() -> None:
        engine = Engine(per_connection=1)
        async with connected(engine, tmp_path / "s") as upstream:
            for _ in range(2):
                assert await read_all(await upstream.request("POST", "/", b"{}")) == b"{}"
        assert engine.requests == 3

    asyncio.run(check())


def test_an_engine_that_never_answers_is_down(tmp_path: Path) -> None:
    async def check() -> None:
        engine = Engine(per_connection=0)
        async with connected(engine, tmp_path / "s") as upstream:
            with pytest.raises(UpstreamDown):
                await upstream.request("POST", "/", b"{}")
        assert engine.requests == 2

    asyncio.run(check())


def test_a_connection_that_does_not_open_in_time_is_tried_again_once() -> None:
    """The queue of connections is full; it is emptied when the first attempt has been given up."""

    async def check() -> None:
        engine = Engine(per_connection=1)
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as fillers:
            address = full.getsockname()
            for _ in range(8):
                filler = fillers.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(address)
            upstream = AiohttpUpstream(f"http://127.0.0.1:{address[1]}")
            asked = asyncio.create_task(upstream.request("POST", "/", b"{}"))
            await asyncio.sleep(CONNECT_TIMEOUT + 0.3)
            assert not asked.done()
            async with await asyncio.start_server(engine.handle, sock=full):
                assert await read_all(await asked) == b"{}"
            await upstream.close()
        assert engine.requests == 1

    asyncio.run(asyncio.wait_for(check(), 30))


def test_no_engine_is_down(tmp_path: Path) -> None:
    async def check(upstream: AiohttpUpstream) -> None:
        with pytest.raises(UpstreamDown):
            await upstream.request("POST", "/", b"{}")
        await upstream.close()

    asyncio.run(check(AiohttpUpstream("http://engine", socket=tmp_path / "nothing")))
    asyncio.run(check(AiohttpUpstream("http://127.0.0.1:9")))


def test_an_answer_that_breaks_off_is_down(tmp_path: Path) -> None:
    async def check() -> None:
        engine = Engine(per_connection=1, answer=ANSWER.replace(b"Length: 2", b"Length: 9"), lingers=False)
        async with connected(engine, tmp_path / "s") as upstream:
            answer = await upstream.request("POST", "/", b"{}")
            with pytest.raises(UpstreamDown):
                await read_all(answer)

    asyncio.run(check())


def test_closing_an_answer_closes_the_connection(tmp_path: Path) -> None:
    async def check() -> None:
        engine = Engine(per_connection=5, answer=ANSWER.replace(b"Length: 2", b"Length: 9"))
        async with connected(engine, tmp_path / "s") as upstream:
            answer = await upstream.request("POST", "/", b"{}")
            answer.close()
            await asyncio.wait_for(engine.gone.wait(), 5)

    asyncio.run(check())


def test_headers_of_a_request_reach_the_engine(tmp_path: Path) -> None:
    async def check() -> None:
        engine = Engine(per_connection=2)
        async with connected(engine, tmp_path / "s") as upstream:
            await read_all(await upstream.request("GET", "/", headers={"traceparent": "00-a-b-01"}))
        assert b"traceparent: 00-a-b-01\r\n" in engine.heads[0]

    asyncio.run(check())


@pytest.mark.parametrize("answer", [ANSWER.replace(b"Length: 2", b"Length: 9"), b""])
def test_closing_the_client_breaks_off_what_is_being_read(tmp_path: Path, answer: bytes) -> None:
    async def check() -> None:
        engine = Engine(per_connection=5, answer=answer)
        async with connected(engine, tmp_path / "s") as upstream:

            async def read() -> bytes:
                return await read_all(await upstream.request("POST", "/", b"{}"))

            reading = asyncio.create_task(read())
            while not engine.requests:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            await upstream.close()
            with pytest.raises(UpstreamDown):
                await asyncio.wait_for(reading, 5)

    asyncio.run(check())


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def silent_after(head: bytes, path: Path, **options: float) -> AsyncIterator[AiohttpUpstream]:
    """An engine that sends a head, and 0.3 s later `{}`."""
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        await asyncio.sleep(0.3)
        writer.write(b"{}")
        writer.close()
        ended.set()

    upstream = AiohttpUpstream("http://engine", socket=path, **options)
    async with await asyncio.start_unix_server(handle, path):
        try:
            yield upstream
        finally:
            await upstream.close()
            await ended.wait()


@pytest.mark.parametrize(
    ("head", "patience", "begun"),
    [
        (EVENTS, 0.05, False),
        (EVENTS, 0, True),
        (EVENTS, 5, True),
        (ANSWER[:-2], 0.05, True),
        (EVENTS.replace(b"200 OK", b"503 No"), 0.05, True),
    ],
)
def test_only_a_silent_stream_is_handed_on_before_it_begins(
    tmp_path: Path, head: bytes, patience: float, begun: bool
) -> None:
    async def check() -> None:
        async with silent_after(head, tmp_path / "s", patience=patience) as upstream:
            answer = await upstream.request("POST", "/", b"{}")
            assert answer.begun == begun
            assert await read_all(answer) == b"{}"

    asyncio.run(check())


def test_a_stream_that_was_handed_on_early_has_no_more_time_to_begin(tmp_path: Path) -> None:
    async def check() -> None:
        options = {"patience": 0.05, "first_byte_timeout": 0.15}
        async with silent_after(EVENTS, tmp_path / "s", **options) as upstream:
            answer = await upstream.request("POST", "/", b"{}")
            with pytest.raises(UpstreamLate, match=r"sent nothing for 0\.15 s"):
                await read_all(answer)

    asyncio.run(check())


def test_closing_breaks_off_a_stream_that_has_not_begun(tmp_path: Path) -> None:
    async def check() -> None:
        async with silent_after(EVENTS, tmp_path / "s", patience=0.05) as upstream:
            reading = asyncio.create_task(read_all(await upstream.request("POST", "/", b"{}")))
            await asyncio.sleep(0.05)
            await upstream.close()
            with pytest.raises(UpstreamDown):
                await asyncio.wait_for(reading, 0.2)

    asyncio.run(check())
