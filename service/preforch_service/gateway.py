"""The parts of a running gateway, as the routes use them."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from preforch_models.bundle import Bundle
from preforch_models.context import ControlStrings
from preforch_models.policy_card import PolicyCard
from starlette.requests import Request
from starlette.responses import Response

from preforch_service.body import read_json, until_disconnect
from preforch_service.control import ControlGuard
from preforch_service.edge import InFlight
from preforch_service.engine_request import Prepared, Preparer, encode_json
from preforch_service.errors import Forbidden, Unavailable, engine_error
from preforch_service.keys import ApiKey
from preforch_service.metrics import Metrics
from preforch_service.readiness import Readiness
from preforch_service.recommender import Recommender
from preforch_service.relay import RelayResponse, relay_events, splice
from preforch_service.settings import ServeSettings
from preforch_service.upstream import Answer, Upstream, UpstreamDown, read_all
from preforch_service.weighing import HEADER, Decision, Weigher

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
    bundle: Bundle
    weigher: Weigher
    readiness: Readiness
    metrics: Metrics
    engine: EngineSide | None
    in_flight: InFlight = field(default_factory=InFlight)

    async def read(self, request: Request) -> dict[str, Any]:
        """The JSON body of a request."""
        return await read_json(request, self.settings)


def build_gateway(
    settings: ServeSettings,
    bundle: Bundle,
    recommender: Recommender,
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
        preparer = Preparer(bundle, guard, model=model, template_kwargs=settings.template_kwargs)
        side = EngineSide(upstream, preparer, model)
    weigher = Weigher(bundle, recommender, deadline=settings.orchestrator_deadline, metrics=metrics)
    readiness = Readiness(upstream, model=model, form=bundle.info.context, metrics=metrics, on_ready=on_ready)
    return Gateway(settings, bundle, weigher, readiness, metrics, side)


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
        else:
            content = engine_error(self.answer.status, content)
        return Response(content, self.answer.status, headers=headers, media_type="application/json")


async def start_generation(
    gateway: Gateway, engine: EngineSide, request: Request, prepared: Prepared, path: str
) -> Generation:
    """Decide the weights and send the request. Raises Unavailable or ClientGone."""
    caller: ApiKey | None = request.state.caller
    if caller is not None and not caller.may_use(engine.model):
        message = f"API key {caller.name!r} may not use model {engine.model!r}"
        raise Forbidden(message, param="model", code="model_not_found")
    if gateway.readiness.engine_blocked is not None:
        raise Unavailable(gateway.readiness.engine_blocked, code="engine_down")
    salt = {} if caller is None else {"cache_salt": caller.salt}

    async def ask() -> tuple[Decision, Answer]:
        (decision,) = await gateway.weigher.decide([prepared.text], prepared.asked)
        # Unique in the engine even when a client uses an id twice.
        request_id = f"{request.state.request_id}-{uuid.uuid4().hex[:8]}"
        asked = gateway.settings.within_tokens(prepared.finish(decision.weights))
        body = encode_json(asked | {"request_id": request_id} | salt)
        return decision, await engine.upstream.request("POST", path, body)

    try:
        decision, answer = await until_disconnect(request, ask())
    except UpstreamDown as error:
        gateway.readiness.report_down()
        raise Unavailable("the engine is down", code="engine_down") from error
    return Generation(gateway, engine, request, decision, answer)


async def served_models(gateway: Gateway, engine: EngineSide, caller: ApiKey | None) -> Response:
    """The engine's models that the caller may use, without the path of the policy. Raises Unavailable."""
    try:
        answer = await engine.upstream.request("GET", "/v1/models")
        content = await read_all(answer)
    except UpstreamDown as error:
        gateway.readiness.report_down()
        raise Unavailable("the engine is down", code="engine_down") from error
    if answer.status == 200:
        models = json.loads(content)
        models["data"] = [model for model in models["data"] if caller is None or caller.may_use(model["id"])]
        for model in models["data"]:
            model["root"] = engine.model
        content = encode_json(models)
    else:
        content = engine_error(answer.status, content)
    return Response(content, answer.status, media_type="application/json")


def event(value: dict[str, Any]) -> bytes:
    """One event of a stream of our own."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n\n"
