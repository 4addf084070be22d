"""A do-nothing streaming reverse proxy: what any ASGI process between client and engine costs at least.

In:  the engine's URL, a port, and which HTTP client and event loop to use. It copies bytes both ways and
     looks at none, parses nothing, watches for no disconnect, counts nothing.

    python benchmarks/proxy.py --upstream http://127.0.0.1:8000 --port 8001 --kind aiohttp-uvloop
"""

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import aiohttp
import httpx
import uvicorn

KINDS = ("aiohttp-uvloop", "aiohttp", "httpx", "httpx-uvloop")
KEEP_ALIVE = 3.0

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Aiohttp:
    """The client of the gateway, set up as there."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))

    @asynccontextmanager
    async def send(
        self, method: str, url: str, body: bytes
    ) -> AsyncIterator[tuple[int, str, AsyncIterator[bytes]]]:
        """Status, content type and body of the answer."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        async with self._session.request(method, url, data=body, headers=headers) as answer:
            yield answer.status, answer.headers.get("Content-Type", ""), answer.content.iter_any()


class Httpx:
    """httpx instead, with as few limits."""

    def __init__(self) -> None:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE
        )
        self._client = httpx.AsyncClient(limits=limits, timeout=None)

    @asynccontextmanager
    async def send(
        self, method: str, url: str, body: bytes
    ) -> AsyncIterator[tuple[int, str, AsyncIterator[bytes]]]:
        """Status, content type and body of the answer."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        async with self._client.stream(method, url, content=body, headers=headers) as answer:
            yield answer.status_code, answer.headers.get("Content-Type", ""), answer.aiter_raw()


Sender = Callable[[str, str, bytes], AbstractAsyncContextManager[tuple[int, str, AsyncIterator[bytes]]]]


class Proxy:
    """ASGI: passes every request on to one address."""

    def __init__(self, upstream: str, new_client: Callable[[], Aiohttp | Httpx]) -> None:
        self._upstream = upstream
        self._new_client = new_client
        self._send: Sender | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._send is None:  # Both clients want a running loop.
            self._send = self._new_client().send
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        async with self._send(scope["method"], self._upstream + scope["path"], body) as (
            status,
            kind,
            pieces,
        ):
            await send(
                {
                    "type": "http.response.start",
                    "status": status,
                    "headers": [(b"content-type", kind.encode())],
                }
            )
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A do-nothing streaming reverse proxy.")
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--kind", choices=KINDS, default=KINDS[0], help="HTTP client, and uvloop instead of asyncio"
    )
    options = parser.parse_args(argv)
    client, _, uvloop = options.kind.partition("-")
    app = Proxy(options.upstream.rstrip("/"), Aiohttp if client == "aiohttp" else Httpx)
    loop: Literal["uvloop", "asyncio"] = "uvloop" if uvloop else "asyncio"
    uvicorn.run(app, port=options.port, loop=loop, access_log=False, lifespan="off", log_config=None)


if __name__ == "__main__":
    main()
