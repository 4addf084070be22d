"""uvicorn as this gateway runs it.

In:  the application and its limits. Out: a `uvicorn.Config` whose connections

1. read a head (request line and headers) of bounded size in bounded time: httptools has no limit of its own;
2. take few bytes that are neither head nor body: frames of chunks, trailers, blank lines;
3. are closed when nothing is asked on them in that time, and broken off when nothing of an answer is read for a while;
4. answer what is no HTTP in OpenAI's error shape;
5. never become WebSockets or anything else. What follows a request to upgrade is not read: uvicorn would take a body
   that comes later for another request;
6. serve one request at a time: a second one that does not wait for the answer is not read, and the connection ends with
   the first answer. uvicorn would stop reading, and so not see that the client leaves.
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
from preforch_service.requests.limits import RequestLimits

logger = logging.getLogger(__name__)


class Refused(ValueError):
    """Ends the parsing of a request."""


def listener_config(app: ASGIApp, limits: RequestLimits, *, idle_timeout: float) -> uvicorn.Config:
    """How to listen. A client has `idle_timeout` seconds to read something of what waits for it."""
    return uvicorn.Config(
        app,
        http=protocol_within(limits, idle_timeout=idle_timeout),
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )


def protocol_within(limits: RequestLimits, *, idle_timeout: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol within the limits. uvicorn makes the instances, so the limits belong to the class."""

    fields_too_large, size = (
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"larger than {limits.max_header_bytes} bytes",
    )
    head_too_large = fields_too_large, f"request line and headers are {size}"
    rest_too_large = fields_too_large, f"trailers and the frames of chunks are {size}"
    no_upgrade = HTTPStatus.BAD_REQUEST, "the connection cannot be upgraded; ask without the header Upgrade"

    class LimitedProtocol(HttpToolsProtocol):
        _head_bytes: int | None = 0  # None outside of a head
        _heads = 0
        _refusal = HTTPStatus.BAD_REQUEST, "this is not a valid HTTP request"
        _body_bytes = _other_bytes = 0
        _timer: TimerHandle | None = None
        _deaf = False  # What comes is not read.
        _unread = 0
        _reading: TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
            super().connection_made(transport)
            self._timer = self.loop.call_later(limits.receive_timeout, self._too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            self._stop_watching()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch_reader()

        def resume_writing(self) -> None:
            super().resume_writing()
            # The client reads. More may come to be written, which a look at what is left would take for standstill.
            self._stop_watching()
            if self.cycle is not None and self.cycle.response_complete:
                self._watch_reader()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch_reader()

        def _watch_reader(self) -> None:
            """Break the connection off unless the client reads. For times when nothing is written that it could not."""
            self._stop_watching()
            self._unread = self.transport.get_write_buffer_size()
            if self._unread:
                self._reading = self.loop.call_later(idle_timeout, self._look_at_reader)

        def _look_at_reader(self) -> None:
            if self.transport.get_write_buffer_size() < self._unread:
                self._watch_reader()
            else:
                self.transport.abort()

        def _stop_watching(self) -> None:
            if self._reading is not None:
                self._reading.cancel()
                self._reading = None

        def data_received(self, data: bytes) -> None:
            if self._deaf:
                return
            in_head, heads, body_bytes = self._head_bytes is not None, self._heads, self._body_bytes
            super().data_received(data)
            if not in_head and self._head_bytes is None and self._heads == heads:
                self._bound_the_rest(len(data) - (self._body_bytes - body_bytes))
            # Bytes behind an answer stop uvicorn's own timer of idle connections.
            if (
                self._timer is None
                and (self.cycle is None or self.cycle.response_complete)
                and not self.pipeline
            ):
                self._timer = self.loop.call_later(limits.receive_timeout, self._too_slow)
            # A piece that began and ended within one head; a head that ends is measured when it does.
            if in_head and self._head_bytes is not None and self._heads == heads:
                self._head_bytes += len(data)
                if self._head_bytes > limits.max_header_bytes:
                    self._refusal = head_too_large
                    self.send_400_response("")

        def _bound_the_rest(self, size: int) -> None:
            """Bytes that are neither head nor body: the frames of chunks, trailers, blank lines between requests."""
            self._other_bytes += size
            # A chunk of one byte has five of frame.
            if (
                self._other_bytes > limits.max_header_bytes + 8 * self._body_bytes
                and not self.transport.is_closing()
            ):
                self._refusal = rest_too_large
                self.send_400_response("")

        def on_header(self, name: bytes, value: bytes) -> None:
            # Trailers come when the head has been checked already, and nobody here reads them.
            if self._head_bytes is not None:
                super().on_header(name, value)

        def on_body(self, body: bytes) -> None:
            self._body_bytes += len(body)
            super().on_body(body)

        def on_message_begin(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._deaf = True
                self.cycle.keep_alive = False
                raise Refused
            super().on_message_begin()
            self._stop_watching()
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
                self._refusal = head_too_large
                raise Refused
            if self.parser.should_upgrade():
                if any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers):
                    self._refusal = no_upgrade
                    raise Refused
                self._deaf = True
            super().on_headers_complete()
            self.cycle.keep_alive &= not self._deaf

        def send_400_response(self, msg: str) -> None:
            if not self.transport.is_closing() and not self._deaf:
                self._refuse(*self._refusal)

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
