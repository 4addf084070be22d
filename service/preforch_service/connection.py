"""What one connection of the listener is measured by, and how it is refused. Nothing here knows uvicorn.

In:  sizes of data, and the loop's clock. Out: whether a limit is passed, and the bytes of the last answer.
"""

import asyncio
import json
from asyncio.events import TimerHandle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from preforch_service.errors import error_body, from_status

BODY_FRAMING = 8
"""Bytes of frame that a byte of body may have: a chunk of one byte has five."""


@dataclass(frozen=True)
class Refusal:
    """The answer to what never becomes a request."""

    status: HTTPStatus
    message: str

    def response(self, request_id: str) -> bytes:
        """Head and body, the last ones on their connection."""
        body = json.dumps(error_body(from_status(self.status, self.message))).encode()
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: application/json\r\n"
            f"X-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body


INVALID = Refusal(HTTPStatus.BAD_REQUEST, "this is not a valid HTTP request")
NO_TUNNEL = Refusal(HTTPStatus.BAD_REQUEST, "this is not a proxy: CONNECT is not served")
UNKNOWN_EXPECTATION = Refusal(
    HTTPStatus.EXPECTATION_FAILED, "the header Expect may hold 100-continue and nothing else"
)


def too_large(what: str, limit: int) -> Refusal:
    """For a head, or what follows it, of more than `limit` bytes."""
    return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"{what} are larger than {limit} bytes")


class Timer:
    """Runs an action once, `seconds` after its start, unless it is stopped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._handle: TimerHandle | None = None

    def start(self, action: Callable[[], None]) -> None:
        """Does nothing to a timer that runs already.

        The action is held only until it has run or is stopped.
        """
        if self._handle is None:
            self._handle = self._loop.call_later(self._seconds, self._end, action)

    def stop(self) -> None:
        """Also where it does not run."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _end(self, action: Callable[[], None]) -> None:
        self._handle = None
        action()


class ReaderWatch:
    """Breaks a connection off whose client takes nothing of what waits to be written, for `seconds`.

    For times when nothing is written: what comes to be written meanwhile would look like standstill.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._transport = transport
        self._timer = Timer(loop, seconds)
        self._unread = 0

    def start(self) -> None:
        """Measure from now on; where nothing waits there is nothing to watch."""
        self._timer.stop()
        self._unread = self._transport.get_write_buffer_size()
        if self._unread:
            self._timer.start(self._look)

    def stop(self) -> None:
        """The client reads, or the connection is lost."""
        self._timer.stop()

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._unread:
            self.start()
        else:
            self._transport.abort()


class Mark(NamedTuple):
    """Where a connection stands before it receives a piece of data."""

    in_head: bool
    heads: int
    body_bytes: int


class ByteCount:
    """What a connection has received, against `limit` bytes of head, or of what is neither head nor body."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_head = True
        self.head_bytes = 0
        """Of a head that is not complete yet."""
        self._heads = 0
        self._body_bytes = 0
        self._other_bytes = 0

    def begin_head(self) -> None:
        """A request begins, and its bytes are counted anew."""
        self.in_head = True
        self.head_bytes = self._body_bytes = self._other_bytes = 0

    def end_head(self, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the complete head is within the limit. It is measured here, whatever pieces it came in."""
        self.in_head = False
        self.head_bytes = 0
        self._heads += 1
        return len(url) + sum(len(name) + len(value) for name, value in headers) <= self._limit

    def add_body(self, size: int) -> None:
        """Bytes of the body, without the frames of chunks."""
        self._body_bytes += size

    def mark(self) -> Mark:
        """To be taken before data are parsed."""
        return Mark(self.in_head, self._heads, self._body_bytes)

    def add(self, size: int, *, since: Mark) -> None:
        """Count parsed data that lay within one head, or outside of any.

        Where a head begins or ends, it counts itself.
        """
        if self._heads != since.heads or self.in_head != since.in_head:
            return
        if self.in_head:
            self.head_bytes += size
        else:
            self._other_bytes += size - (self._body_bytes - since.body_bytes)

    @property
    def head_too_large(self) -> bool:
        """Of a head that is not complete yet."""
        return self.head_bytes > self._limit

    @property
    def rest_too_large(self) -> bool:
        """Frames of chunks, trailers, blank lines between requests."""
        return self._other_bytes > self._limit + BODY_FRAMING * self._body_bytes
