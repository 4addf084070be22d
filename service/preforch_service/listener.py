"""uvicorn as this gateway runs it.

In:  the application and its limits. Out: a `uvicorn.Config` whose connections

1. read a head (request line and headers) of bounded size in bounded time: httptools has no limit of its own;
2. take few bytes that are neither head nor body: frames of chunks, trailers, blank lines;
3. are closed when a new one is asked nothing in that time, or one that has answered nothing more in the time
   that clients keep one, and broken off when nothing of an answer is read for a while;
4. answer what is not HTTP in OpenAI's error shape;
5. never become WebSockets or anything else: an offer to upgrade is ignored, and its request answered as any
   other, body included (RFC 9110, 7.8). llhttp, uvicorn's parser, would leave that body to another protocol,
   and uvicorn would take it for another request;
6. are closed after an answer to a client that asked whether to send its body (`Expect`) and was not told to:
   it may send it all the same, or another request, and nothing tells which (RFC 9110, 10.1.1);
7. serve one request at a time: a second one that does not wait for the answer is not read, and the connection
   ends with the first answer. uvicorn would stop reading, and so not see that the client leaves.

uvicorn offers no seam for this: `LimitedProtocol` overrides methods of its protocol and reads its state.
pyproject.toml therefore pins the minor versions of uvicorn and httptools, and test_listener says what a new
one has changed.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from preforch_service.connection import (
    INVALID,
    NO_TUNNEL,
    UNKNOWN_EXPECTATION,
    ByteCount,
    ReaderWatch,
    Refusal,
    Timer,
    too_large,
)
from preforch_service.requests.limits import RequestLimits

KEEP_ALIVE = 95
"""Seconds that a connection may stay idle after an answer. Whoever ends one must be the side that asks, or a
request meets a connection that is being closed and is lost: httpx and the clients built on it keep one for 5,
aiohttp 15, load balancers 60, Go 90. uvicorn's own default is 5, as httpx's."""

logger = logging.getLogger(__name__)


class ListenerConfig(uvicorn.Config):
    """How to listen. uvicorn makes a protocol for each connection, and hands it this."""

    def __init__(self, app: ASGIApp, limits: RequestLimits, *, idle_timeout: float) -> None:
        """A client has `idle_timeout` seconds to read something of what waits for it."""
        self.limits = limits
        self.idle_timeout = idle_timeout
        super().__init__(
            app,
            http=LimitedProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=1,
        )


class Refused(ValueError):
    """Ends the parsing of a request. uvicorn then calls `send_400_response`."""


class Parser(httptools.HttpRequestParser):
    """llhttp as uvicorn sets it up, but for an offer to upgrade, at whose head llhttp ends the request.

    `on_offer` gets what follows that head. (uvicorn is told of it by an exception, and drops it.)
    """

    def __init__(self, protocol: HttpToolsProtocol, on_offer: Callable[[bytes], None]) -> None:
        super().__init__(protocol)
        self._on_offer = on_offer
        # What follows `Connection: close` does not spoil the request before it.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    # uvicorn feeds bytes and nothing else.
    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        """Raises HttpParserError for what is not HTTP."""
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._on_offer(data[offer.args[0] :])


class LimitedProtocol(HttpToolsProtocol):
    """One connection. While `data_received` runs, the parser calls the methods `on_...`."""

    def __init__(
        self,
        config: ListenerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = Parser(self, self._ignore_offer)
        self._limits = config.limits
        self._idle_timeout = config.idle_timeout
        self._count = ByteCount(config.limits.max_header_bytes)
        self._head_timer = Timer(self.loop, config.limits.receive_timeout)
        self._refusal = INVALID
        self._ignore_input = False

    # uvicorn's type, which is narrower than asyncio's.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reader_watch = ReaderWatch(transport, self.loop, self._idle_timeout)
        self._head_timer.start(self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.stop()
        self._reader_watch.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_watch.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        # The client reads. More may come to be written, which a look at what is left would take for
        # standstill.
        self._reader_watch.stop()
        if self.cycle is not None and self.cycle.response_complete:
            self._reader_watch.start()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._reader_watch.start()

    def data_received(self, data: bytes) -> None:
        if self._ignore_input:
            return
        before = self._count.mark()
        super().data_received(data)
        self._count.add(len(data), since=before)
        if self._count.rest_too_large:
            self._refuse_with(too_large("trailers and the frames of chunks", self._limits.max_header_bytes))
        # Bytes after an answer stop uvicorn's own timer of idle connections.
        if self._answered and not self.pipeline:
            self._head_timer.start(self._too_slow)
        if self._count.head_too_large:
            self._refuse_with(self._head_too_large)

    def on_message_begin(self) -> None:
        if not self._answered:
            self._ignore_input = True
            self.cycle.keep_alive = False
            raise Refused
        super().on_message_begin()
        self._reader_watch.stop()
        self._count.begin_head()
        self._head_timer.start(self._too_slow)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come when the head has been checked already, and nobody here reads them.
        if self._count.in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_timer.stop()
        if not self._count.end_head(self.url, self.headers):
            self._refusal = self._head_too_large
            raise Refused
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._refusal = NO_TUNNEL
                raise Refused
            return  # see `_ignore_offer`
        self._check_expectation()
        super().on_headers_complete()
        self.cycle.keep_alive &= not self.expect_100_continue

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        # The body is there, so whatever comes next is another request.
        if self.expect_100_continue and not self.cycle.response_started:
            self.cycle.keep_alive = self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._count.add_body(len(body))
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this when parsing fails, also by `Refused`. The words are ours."""
        self._refuse_with(self._refusal)

    def _ignore_offer(self, rest: bytes) -> None:
        """Parse the head once more without the offer, and `rest`, which follows it, as its body.

        So llhttp itself decides, from the same headers, where that ends. It takes a new parser: the old one
        has nothing more to read where the connection is to be closed after the answer.
        """
        version = self.parser.get_http_version()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version.encode("ascii"))]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = Parser(self, self._ignore_offer)
        self.parser.feed_data(b"\r\n".join([*lines, b"", rest]))

    def _check_expectation(self) -> None:
        """Raise Refused for one that is not known here."""
        if any(name == b"expect" and value.lower() != b"100-continue" for name, value in self.headers):
            self._refusal = UNKNOWN_EXPECTATION
            raise Refused
        # Such a client does not know the answer 100, and must not get it.
        self.expect_100_continue &= self.parser.get_http_version() != "1.0"

    @property
    def _answered(self) -> bool:
        """No request is being served."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _head_too_large(self) -> Refusal:
        return too_large("request line and headers", self._limits.max_header_bytes)

    def _too_slow(self) -> None:
        if not self._count.head_bytes:  # a connection opened in advance and never used
            self.transport.close()
        else:
            message = f"no complete head in {self._limits.receive_timeout:g} s"
            self._refuse_with(Refusal(HTTPStatus.REQUEST_TIMEOUT, message))

    def _refuse_with(self, refusal: Refusal) -> None:
        """Answer without the application, and hang up. While another answer is being sent, only hang up."""
        if self._ignore_input or self.transport.is_closing():
            return
        if self._answered or not self.cycle.response_started:
            request_id = uuid.uuid4().hex
            facts = {"status": refusal.status.value, "request_id": request_id}
            logger.info("refused before it was a request", extra={"facts": facts})
            self.transport.write(refusal.response(request_id))
        self.transport.close()
