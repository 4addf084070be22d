"""Talks to a vLLM server, over TCP or a Unix socket.

In:  method, path, JSON bytes. Out: an `Answer` whose bytes are read as they come.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

import aiohttp

# vLLM closes idle connections after 5 s.
KEEP_ALIVE = 3.0
CONNECT_TIMEOUT = 5.0


class UpstreamDown(Exception):
    """The engine cannot be reached, or its answer broke off."""


class Answer(Protocol):
    """One answer of the engine."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def content_type(self) -> str:
        """Media type, without parameters."""
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
        """Send a request and wait for the head of the answer. Raises UpstreamDown."""
        ...


async def read_all(answer: Answer) -> bytes:
    """The whole body; the answer is closed in any case."""
    try:
        return b"".join([chunk async for chunk in answer.chunks()])
    finally:
        answer.close()


class AiohttpAnswer:
    """An answer that aiohttp reads."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._response.status

    @property
    def content_type(self) -> str:
        """Media type, without parameters."""
        return self._response.content_type

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise UpstreamDown(f"the engine's answer broke off: {error!r}") from error

    def close(self) -> None:
        """Close the connection unless the body has been read to its end."""
        self._response.close()


class AiohttpUpstream:
    """A vLLM server at a URL, or at a Unix socket."""

    def __init__(self, url: str, *, socket: Path | None = None) -> None:
        self._url = url.rstrip("/")
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    def _open_session(self) -> aiohttp.ClientSession:
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
        """Send a request; once more when a pooled connection turns out to be closed. Raises UpstreamDown."""
        try:
            return await self._send(method, path, body, headers)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise UpstreamDown(f"the engine cannot be reached: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UpstreamDown(f"the engine cannot be reached: {error!r}") from error
        try:
            return await self._send(method, path, body, headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UpstreamDown(f"the engine cannot be reached: {error!r}") from error

    async def _send(self, method: str, path: str, body: bytes | None, more: Mapping[str, str] | None) -> AiohttpAnswer:
        headers = {"Accept-Encoding": "identity", **(more or {})}
        if body is not None:
            headers["Content-Type"] = "application/json"
        session = self._open_session()
        return AiohttpAnswer(await session.request(method, self._url + path, data=body, headers=headers))

    async def close(self) -> None:
        """Close the pooled connections."""
        if self._session is not None:
            await self._session.close()
