"""Pure ASGI middleware around the routes: Host, draining, keys, and the last word on errors."""

import logging
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preforch_service.engine.readiness import Readiness
from preforch_service.errors import ApiError, BadRequest, ClientGone, Unavailable, error_response, from_status
from preforch_service.middleware.access import Access
from preforch_service.telemetry.metrics import Metrics

HEALTH = ("/livez", "/readyz")
"""Paths that are asked every few seconds, need no key and tell nothing."""

logger = logging.getLogger(__name__)


@dataclass
class InFlight:
    """Counts requests that are being answered, health checks apart."""

    count: int = 0


def host_name(header: str) -> str:
    """A Host header without its port; IPv6 addresses keep their brackets."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower()


class Edge:
    """Checks who may pass before any route is reached."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: frozenset[str],
        access: Access,
        readiness: Readiness,
        metrics: Metrics,
        in_flight: InFlight,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._access = access
        self._readiness = readiness
        self._metrics = metrics
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # No route speaks it, and none shall without passing the checks below.
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["path"] in HEALTH:
            await self._guarded(scope, receive, send, None)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._in_flight.count += 1
        self._metrics.in_flight.inc()
        try:
            await self._guarded(
                scope, receive, send, self._refusal(scope) or await self._access.refusal(scope)
            )
        finally:
            self._in_flight.count -= 1
            self._metrics.in_flight.dec()

    def _refusal(self, scope: Scope) -> ApiError | None:
        host = Headers(scope=scope).get("host", "")
        if "*" not in self._hosts and host_name(host) not in self._hosts:
            return BadRequest(
                f"Host {host!r} is not served here; see --allowed-host", code="host_not_allowed"
            )
        if self._readiness.draining:
            return Unavailable("the gateway is shutting down", code="draining")
        return None

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, refusal: ApiError | None) -> None:
        started = False

        async def marking(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
            await send(message)

        try:
            if refusal is not None:
                await error_response(refusal, scope["path"])(scope, receive, marking)
            else:
                await self._app(scope, receive, marking)
        except ClientGone:
            # The observer has seen it too, and counts it.
            return
        except (
            Exception
        ):  # the last word: whatever went wrong below, the client gets an answer and the log the reason
            logger.exception("request failed", extra={"facts": {"request_id": scope["state"]["request_id"]}})
            if not started:
                await error_response(from_status(500), scope["path"])(scope, receive, marking)
