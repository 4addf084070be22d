"""Pure ASGI middleware outside of everything: gives each request its id, and reports how it went.

In:  requests. Out: `X-Request-Id` on every answer; metrics, one log line and, with a tracer, spans per
     request. What the parts inside know of a request (where its weights came from, when the engine was asked)
     they tell its `Observation`, which lies in the request's state. Nothing here reads a body (but to
     know comments that keep a connection alive, which no engine wrote), a URL or a query.
"""

import re
import time
import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preforch_service.engine.relay import KEEP_ALIVE
from preforch_service.middleware.edge import HEALTH
from preforch_service.recommendation.weighing import Decision
from preforch_service.telemetry.logs import AccessLog
from preforch_service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    # The SDK is loaded only where traces are wanted.
    from preforch_service.telemetry.tracing import Trace, Tracing

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
CLIENT_LEFT = 499
"""The status of a request that nobody waited for, as nginx has it."""


@dataclass
class Observation:
    """What is known of one request.

    Times are those of `time.perf_counter`, None where it has not come so far.
    """

    request_id: str
    metrics: Metrics
    trace: "Trace | None" = None
    started: float = field(default_factory=time.perf_counter)
    read_at: float | None = None
    weighing: bool = False
    asked_at: float | None = None
    first_byte_at: float | None = None
    status: int = CLIENT_LEFT
    streams: bool = False
    bytes: int = 0
    complete: bool = False
    client_left: bool = False
    source: str | None = None
    bundle: str | None = None

    async def track_decisions(self, deciding: Awaitable[list[Decision]]) -> list[Decision]:
        """Await the decisions on the weights and note them."""
        started = time.time_ns()
        self.weighing = True
        decisions = await deciding
        sources = {decision.source for decision in decisions}
        self.source = sources.pop() if len(sources) == 1 else "mixed"
        self.bundle = decisions[0].bundle
        if self.trace is not None and any(decision.asked_orchestrator for decision in decisions):
            self.trace.recommended(started, source=self.source, texts=len(decisions))
        return decisions

    def asks_engine(self, path: str) -> Mapping[str, str]:
        """The engine is asked now. Returns headers for it."""
        self.asked_at = time.perf_counter()
        self.metrics.gateway_seconds.labels(self.source).observe(
            self.asked_at - (self.read_at or self.started)
        )
        return {} if self.trace is None else self.trace.asks_engine(path)

    def engine_answered(self, status: int) -> None:
        """The head of the engine's answer is there."""
        if self.trace is not None:
            self.trace.engine_answered(status)

    def receives(self, message: Message) -> None:
        """A message from the client."""
        if message["type"] == "http.disconnect":
            self.client_left = self.client_left or not self.complete
        elif not message.get("more_body"):
            self.read_at = time.perf_counter()

    def sends(self, message: Message) -> None:
        """A message to the client; its head gets the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            self.streams = headers.get("content-type", "").startswith("text/event-stream")
            return
        body = message.get("body", b"")
        self.bytes += len(body)
        if body and body != KEEP_ALIVE and self.first_byte_at is None:
            self.first_byte_at = time.perf_counter()
        self.complete = not message.get("more_body")

    @property
    def phase(self) -> str:
        """How far the request has come."""
        if self.read_at is None:
            return "reading"
        if self.asked_at is None:
            return "weights" if self.weighing else "waiting"
        return "first_byte" if self.first_byte_at is None else "answer"

    @property
    def first_byte_seconds(self) -> float | None:
        """How long the engine took to the first byte of a good answer."""
        if self.asked_at is None or self.first_byte_at is None or self.status != 200:
            return None
        return self.first_byte_at - self.asked_at


def observation_of(request: Request) -> Observation:
    """What the outermost layer has put into the request's state."""
    found = request.state.observation
    assert isinstance(found, Observation)
    return found


class Observer:
    """The outermost layer of the application."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, access_log: AccessLog | None, tracing: "Tracing | None"
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        seen = Observation(given if REQUEST_ID.match(given) else uuid.uuid4().hex, self._metrics)
        quiet = scope["path"] in HEALTH
        if self._tracing is not None and not quiet:
            seen.trace = self._tracing.begin(headers, request_id=seen.request_id)
        scope.setdefault("state", {}).update(request_id=seen.request_id, observation=seen)

        async def receiving() -> Message:
            message = await receive()
            seen.receives(message)
            return message

        async def sending(message: Message) -> None:
            seen.sends(message)
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        finally:
            if not quiet:
                self._report(seen, scope)

    def _report(self, seen: Observation, scope: Scope) -> None:
        seconds = time.perf_counter() - seen.started
        # The template of the route: a path, or a method, that a client makes up must not become a label.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        self._metrics.requests.labels(route, str(seen.status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if seen.client_left:
            self._metrics.cancellations.labels(seen.phase).inc()
        if seen.first_byte_seconds is not None:
            stream = "true" if seen.streams else "false"
            self._metrics.engine_first_byte_seconds.labels(stream).observe(seen.first_byte_seconds)
        facts = self._facts(seen, scope)
        if seen.trace is not None:
            facts["trace_id"] = seen.trace.trace_id
            seen.trace.end(method=method, route=route, status=seen.status, client_left=seen.client_left)
        if self._access_log is not None:
            self._access_log(method=method, route=route, status=seen.status, seconds=seconds, facts=facts)

    def _facts(self, seen: Observation, scope: Scope) -> dict[str, object]:
        facts: dict[str, object] = {
            "request_id": seen.request_id,
            "source": seen.source,
            "bundle": seen.bundle,
            "key": getattr(scope["state"].get("caller"), "name", None),
            "first_byte_seconds": seen.first_byte_seconds and round(seen.first_byte_seconds, 6),
            "bytes": seen.bytes,
            "client_left": seen.phase if seen.client_left else None,
            "broken_off": (not seen.complete and not seen.client_left) or None,
        }
        return {name: value for name, value in facts.items() if value is not None}
