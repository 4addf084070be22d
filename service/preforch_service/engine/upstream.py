"""Talks to one vLLM server, over TCP or a Unix socket.

In:  method, path, JSON bytes. Out: an `Answer`, once its first bytes are there; the others are read as they
     come. A stream whose head is there may be had earlier, for a client that is to be told that it lives.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import aiohttp

from preforch_service.engine.watch import Watch

# vLLM closes idle connections after 5 s.
KEEP_ALIVE = 3.0
CONNECT_TIMEOUT = 5.0
EVENT_STREAM = "text/event-stream"


class UpstreamDown(Exception):
    """The engine cannot be reached, or its answer broke off. `reason` is a label for metrics."""

    def __init__(self, message: str, *, reason: str = "unreachable") -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def kind(self) -> str:
        """What a log may say: messages could quote what was sent."""
        cause = self.__cause__
        return self.reason if cause is None else f"{self.reason} ({type(cause).__name__})"


class UpstreamLate(UpstreamDown):
    """The engine holds the connection but sends nothing, for longer than allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="late")


class Answer(Protocol):
    """One answer of the engine, its body not read yet."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def content_type(self) -> str:
        """Media type, without parameters."""
        ...

    @property
    def begun(self) -> bool:
        """Whether something of the body, or its end, is there. A head alone shows no engine at work."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises UpstreamDown when it breaks off."""
        ...

    def close(self) -> None:
        """Stop reading; the engine then stops generating. Harmless at the end."""
        ...


class Upstream(Protocol):
    """What the gateway needs of an engine."""

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and wait for the first bytes of the answer's body, or as long as is useful.

        Raises UpstreamDown or UpstreamLate.
        """
        ...

    async def close(self) -> None:
        """Break off what is running; later requests raise UpstreamDown."""
        ...


def streams(answer: Answer) -> bool:
    """Whether the answer comes as events."""
    return answer.status == 200 and answer.content_type == EVENT_STREAM


async def read_all(answer: Answer) -> bytes:
    """The whole body; the answer is closed in any case."""
    try:
        return b"".join([chunk async for chunk in answer.chunks()])
    finally:
        answer.close()


class FirstByteLimit:
    """From now on, an engine has so many seconds to begin its answer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None, None]:
        """Around each wait for it. Raises UpstreamLate."""
        try:
            async with asyncio.timeout_at(self._deadline):
                yield
        except TimeoutError as error:
            raise UpstreamLate(f"the engine sent nothing for {self._seconds:g} s") from error


class AiohttpAnswer:
    """An answer that aiohttp reads. `idle_timeout` is the longest wait between two pieces, in seconds."""

    def __init__(
        self, response: aiohttp.ClientResponse, limit: FirstByteLimit, *, idle_timeout: float
    ) -> None:
        self._response = response
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._first: bytes | None = None

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._response.status

    @property
    def content_type(self) -> str:
        """Media type, without parameters."""
        return self._response.content_type

    @property
    def begun(self) -> bool:
        """Whether something of the body, or its end, is there."""
        return self._first is not None

    async def start(self, patience: float) -> None:
        """Wait for the first piece of the body, or its end; of a stream for `patience` seconds.

        With a patience of 0, as long as it takes.
        """
        if not patience or not streams(self):
            self._first = await self._piece()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                self._first = await self._piece()

    async def _piece(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamDown(f"the engine's answer broke off: {error!r}", reason="broken") from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises UpstreamDown or UpstreamLate."""
        piece = self._first
        if piece is None:
            async with self._limit.held():
                piece = await self._piece()
        # Closing wakes who reads.
        with Watch(self._idle_timeout, self.close) as watch:
            while piece:
                yield piece
                watch.begin()
                try:
                    piece = await self._piece()
                except UpstreamDown as error:
                    if watch.late:
                        raise UpstreamLate(
                            f"the engine sent nothing more for {self._idle_timeout:g} s"
                        ) from error
                    raise
                watch.end()

    def close(self) -> None:
        """Close the connection unless the body has been read to its end."""
        self._response.close()


class AiohttpUpstream:
    """A vLLM server at a URL, or at a Unix socket."""

    def __init__(
        self,
        url: str,
        *,
        socket: Path | None = None,
        first_byte_timeout: float = 600,
        idle_timeout: float = 120,
        patience: float = 0,
    ) -> None:
        """A stream that has not begun `patience` seconds after its head is handed on all the same; 0: none.

        If it then fails, it is too late to ask another engine, or to answer with another status.
        """
        self._url = url.rstrip("/")
        self._socket = socket
        self._first_byte_timeout = first_byte_timeout
        self._idle_timeout = idle_timeout
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._answers: weakref.WeakSet[AiohttpAnswer] = weakref.WeakSet()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise UpstreamDown("the connections to the engine have been closed")
        # aiohttp wants a running loop here, so not in the constructor.
        if self._session is None:
            connector = (
                aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE)
                if self._socket is None
                else aiohttp.UnixConnector(str(self._socket), limit=0, keepalive_timeout=KEEP_ALIVE)
            )
            timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> AiohttpAnswer:
        """Send a request and wait for the first bytes of the answer. Raises UpstreamDown or UpstreamLate."""
        limit = FirstByteLimit(self._first_byte_timeout)
        async with limit.held():
            response = await self._head(method, path, body, headers or {})
            answer = AiohttpAnswer(response, limit, idle_timeout=self._idle_timeout)
            self._answers.add(answer)
            try:
                await answer.start(self._patience)
            except BaseException:
                answer.close()
                raise
            return answer

    async def _head(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Send; once more where a pooled connection is found closed, or a new one does not open in time."""
        try:
            try:
                return await self._send(method, path, body, headers)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ConnectionTimeoutError):
                return await self._send(method, path, body, headers)
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamDown(f"the engine cannot be reached: {str(error) or repr(error)}") from error

    async def _send(
        self, method: str, path: str, body: bytes | None, more: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        headers = {"Accept-Encoding": "identity", **more}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await self._open_session().request(method, self._url + path, data=body, headers=headers)

    async def close(self) -> None:
        """Close all connections: what is being read breaks off."""
        self._closed = True
        # Closing the session alone would leave who is reading waiting.
        for answer in list(self._answers):
            answer.close()
        if self._session is not None:
            await self._session.close()
