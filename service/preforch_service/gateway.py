"""The parts of a running gateway, as the routes use them."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from preforch_models.context import ControlStrings
from preforch_models.policy_card import PolicyCard
from starlette.requests import Request
from starlette.responses import Response

from preforch_service.body import read_json, until_disconnect
from preforch_service.control import ControlGuard
from preforch_service.edge import InFlight
from preforch_service.engine_request import Prepared, Preparer, encode_json
from preforch_service.errors import Unavailable
from preforch_service.metrics import Metrics
from preforch_service.readiness import Readiness
from preforch_service.relay import RelayResponse, relay_events, splice
from preforch_service.reloading import Reloader
from preforch_service.serving import InForce
from preforch_service.settings import ServeSettings
from preforch_service.upstream import Answer, Upstream, UpstreamDown, read_all
from preforch_service.weighing import HEADER, Decision

EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class EngineSide:
    """What is there only with a language model."""

    upstream: Upstream
    preparer: Preparer
    model: str


@dataclass(frozen=True)
class Gateway:
    """Everything that a request needs. `engine` is None where only weights are served."""

    settings: ServeSettings
    bundles: InForce
    reloader: Reloader
    readiness: Readiness
    metrics: Metrics
    engine: EngineSide | None
    in_flight: InFlight = field(default_factory=InFlight)

    async def read(self, request: Request) -> dict[str, Any]:
        """The JSON body of a request."""
        return await read_json(request, limit=self.settings.max_body_bytes)


def build_gateway(
    settings: ServeSettings,
    bundles: InForce,
    *,
    metrics: Metrics,
    card: PolicyCard | None = None,
    upstream: Upstream | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> Gateway:
    """Put the parts together; card and upstream come together, or not at all for weights only."""
    assert (card is None) == (upstream is None), "an engine comes with the card of its policy"
    model = "" if card is None else settings.served_model_name or card.name
    side = None
    if card is not None and upstream is not None:
        guard = ControlGuard(ControlStrings(card.control_strings), mode=settings.control_tokens, metrics=metrics)
        preparer = Preparer(card.context, guard, model=model, template_kwargs=settings.template_kwargs)
        side = EngineSide(upstream, preparer, model)
    form = bundles.current.bundle.info.context
    readiness = Readiness(upstream, model=model, form=form, metrics=metrics, on_ready=on_ready)
    reloader = Reloader(settings, bundles, readiness, metrics)
    return Gateway(settings, bundles, reloader, readiness, metrics, side)


def weights_header(request: Request) -> str | None:
    """The weights in the request's headers; several headers are one."""
    given = request.headers.getlist(HEADER)
    return ",".join(given) if given else None


@dataclass(frozen=True)
class Generation:
    """One generation: asks the engine and keeps what the answer must say about the weights."""

    gateway: Gateway
    engine: EngineSide
    request: Request
    decision: Decision
    answer: Answer

    async def read(self) -> bytes:
        """The whole answer. Raises Unavailable when it breaks off, ClientGone when nobody waits for it."""
        try:
            return await until_disconnect(self.request, read_all(self.answer))
        except UpstreamDown as error:
            self.gateway.readiness.report_down()
            raise Unavailable("the engine died while it was answering", code="engine_down") from error

    @property
    def streams(self) -> bool:
        """Whether the answer comes as events."""
        return self.answer.status == 200 and self.answer.content_type == EVENT_STREAM

    async def relay(self) -> Response:
        """The engine's answer with the preference object in it."""
        preference, headers = self.decision.preference(), self.decision.headers()
        if self.streams:
            body = relay_events(self.answer.chunks(), preference)
            return RelayResponse(self.answer, body, headers=headers)
        content = await self.read()
        if self.answer.status == 200:
            content = splice(content, "preference", preference)
        elif self.answer.status >= 500 and not await self.gateway.readiness.check():
            raise Unavailable("the engine is down", code="engine_down")
        return Response(content, self.answer.status, headers=headers, media_type=self.answer.content_type)


async def start_generation(
    gateway: Gateway, engine: EngineSide, request: Request, prepared: Prepared, path: str
) -> Generation:
    """Decide the weights and send the request. Raises Unavailable or ClientGone."""
    if gateway.readiness.engine_blocked is not None:
        raise Unavailable(gateway.readiness.engine_blocked, code="engine_down")

    async def ask() -> tuple[Decision, Answer]:
        with gateway.bundles.taken() as loaded:
            (decision,) = await loaded.weigher.decide([prepared.text], prepared.asked)
        # Unique in the engine even when a client uses an id twice.
        request_id = f"{request.state.request_id}-{uuid.uuid4().hex[:8]}"
        body = encode_json(prepared.finish(decision.weights) | {"request_id": request_id})
        return decision, await engine.upstream.request("POST", path, body)

    try:
        decision, answer = await until_disconnect(request, ask())
    except UpstreamDown as error:
        gateway.readiness.report_down()
        raise Unavailable("the engine is down", code="engine_down") from error
    return Generation(gateway, engine, request, decision, answer)


async def served_models(gateway: Gateway, engine: EngineSide) -> Response:
    """The engine's models, without the path of the policy. Raises Unavailable."""
    try:
        answer = await engine.upstream.request("GET", "/v1/models")
        content = await read_all(answer)
    except UpstreamDown as error:
        gateway.readiness.report_down()
        raise Unavailable("the engine is down", code="engine_down") from error
    if answer.status == 200:
        models = json.loads(content)
        for model in models["data"]:
            model["root"] = engine.model
        content = encode_json(models)
    return Response(content, answer.status, media_type=answer.content_type)


def event(value: dict[str, Any]) -> bytes:
    """One event of a stream of our own."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n\n"
