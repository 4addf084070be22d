"""uvicorn as this gateway runs it.

In:  the application and its limits. Out: a `uvicorn.Config` whose connections

1. read a head (request line and headers) of bounded size in bounded time: httptools has no limit of its own;
2. take few bytes that are neither head nor body: frames of chunks, trailers, blank lines;
3. are closed when nothing is asked on them in that time;
4. answer what is no HTTP in OpenAI's error shape;
5. never become WebSockets.
"""

import asyncio
import json
import logging
import uuid
from asyncio.events import TimerHandle
from http import HTTPStatus

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from preforch_service.errors import error_body, from_status
from preforch_service.request_limits import RequestLimits

logger = logging.getLogger(__name__)


class HeadTooLarge(ValueError):
    """Request line and headers are over the limit."""


def listener_config(app: ASGIApp, limits: RequestLimits) -> uvicorn.Config:
    """How to listen."""
    return uvicorn.Config(
        app,
        http=protocol_within(limits),
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )


def protocol_within(limits: RequestLimits) -> type[asyncio.Protocol]:
    """uvicorn's protocol within the limits. uvicorn makes the instances, so the limits belong to the class."""

    head_too_large = f"request line and headers are larger than {limits.max_header_bytes} bytes"
    rest_too_large = f"trailers and the frames of chunks are larger than {limits.max_header_bytes} bytes"

    class LimitedProtocol(HttpToolsProtocol):
        _head_bytes: int | None = 0  # None outside of a head
        _heads = 0
        _too_large: str | None = None
        _body_bytes = _other_bytes = 0
        _timer: TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
            super().connection_made(transport)
            self._timer = self.loop.call_later(limits.receive_timeout, self._too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            in_head, heads, body_bytes = self._head_bytes is not None, self._heads, self._body_bytes
            super().data_received(data)
            if not in_head and self._head_bytes is None and self._heads == heads:
                self._bound_the_rest(len(data) - (self._body_bytes - body_bytes))
            # Bytes behind an answer stop uvicorn's own timer of idle connections.
            if self._timer is None and (self.cycle is None or self.cycle.response_complete) and not self.pipeline:
                self._timer = self.loop.call_later(limits.receive_timeout, self._too_slow)
            # A piece that began and ended within one head; a head that ends is measured when it does.
            if in_head and self._head_bytes is not None and self._heads == heads:
                self._head_bytes += len(data)
                if self._head_bytes > limits.max_header_bytes:
                    self._too_large = head_too_large
                    self.send_400_response("")

        def _bound_the_rest(self, size: int) -> None:
            """Bytes that are neither head nor body: the frames of chunks, trailers, blank lines between requests."""
            self._other_bytes += size
            # A chunk of one byte has five of frame.
            if self._other_bytes > limits.max_header_bytes + 8 * self._body_bytes and not self.transport.is_closing():
                self._too_large = rest_too_large
                self.send_400_response("")

        def on_header(self, name: bytes, value: bytes) -> None:
            # Trailers come when the head has been checked already, and nobody here reads them.
            if self._head_bytes is not None:
                super().on_header(name, value)

        def on_body(self, body: bytes) -> None:
            self._body_bytes += len(body)
            super().on_body(body)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._head_bytes = 0
            self._body_bytes = self._other_bytes = 0
            if self._timer is None:
                self._timer = self.loop.call_later(limits.receive_timeout, self._too_slow)

        def on_headers_complete(self) -> None:
            self._head_bytes = None
            self._heads += 1
            self._stop_timer()
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > limits.max_header_bytes:
                self._too_large = head_too_large
                raise HeadTooLarge
            super().on_headers_complete()

        def send_400_response(self, msg: str) -> None:
            if self.transport.is_closing():
                return
            if self._too_large is not None:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._too_large)
            else:
                self._refuse(HTTPStatus.BAD_REQUEST, "this is not a valid HTTP request")

        def _too_slow(self) -> None:
            self._timer = None
            if not self._head_bytes:  # a connection opened in advance and never used
                self.transport.close()
            elif not self.transport.is_closing():
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no complete head in {limits.receive_timeout:g} s")

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _refuse(self, status: HTTPStatus, message: str) -> None:
            """Answer without the application, and hang up. While another answer is being sent, only hang up."""
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                body = json.dumps(error_body(from_status(status, message))).encode()
                request_id = uuid.uuid4().hex
                head = (
                    f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
                    f"X-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                facts = {"status": status.value, "request_id": request_id}
                logger.info("refused before it was a request", extra={"facts": facts})
                self.transport.write(head.encode() + body)
            self.transport.close()

    return LimitedProtocol
