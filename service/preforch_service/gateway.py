"""The parts of a running gateway, as the routes use them."""

import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from preforch_models.bundle import Bundle
from preforch_models.context import ControlStrings
from preforch_models.policy_card import PolicyCard
from starlette.requests import Request
from starlette.responses import Response

from preforch_service.admission import Admission
from preforch_service.body import read_json, until_disconnect
from preforch_service.control import ControlGuard
from preforch_service.edge import InFlight
from preforch_service.engine_request import Prepared, Preparer, encode_json
from preforch_service.errors import ApiError, ClientGone, EngineLate, Overloaded, Unavailable
from preforch_service.metrics import Metrics
from preforch_service.pool import Pool, PooledAnswer
from preforch_service.readiness import Readiness
from preforch_service.recommender import Recommender
from preforch_service.relay import RelayResponse, relay_events, splice
from preforch_service.settings import ServeSettings
from preforch_service.upstream import Upstream, UpstreamDown, UpstreamLate, read_all
from preforch_service.weighing import HEADER, Decision, Weigher

EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class EngineSide:
    """What is there only with a language model."""

    upstream: Pool
    preparer: Preparer
    model: str
    admission: Admission


@dataclass(frozen=True)
class Gateway:
    """Everything that a request needs. `engine` is None where only weights are served."""

    settings: ServeSettings
    bundle: Bundle
    weigher: Weigher
    readiness: Readiness
    metrics: Metrics
    engine: EngineSide | None
    weights_admission: Admission
    in_flight: InFlight = field(default_factory=InFlight)

    async def read(self, request: Request) -> dict[str, Any]:
        """The JSON body of a request."""
        return await read_json(request, limit=self.settings.max_body_bytes)


def build_gateway(
    settings: ServeSettings,
    bundle: Bundle,
    recommender: Recommender,
    *,
    metrics: Metrics,
    card: PolicyCard | None = None,
    upstreams: Mapping[str, Upstream] | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> Gateway:
    """Put the parts together; card and upstreams (by name) come together, or not at all for weights only."""
    assert (card is None) == (upstreams is None), "an engine comes with the card of its policy"
    model = "" if card is None else settings.served_model_name or card.name
    side = None
    pool = None
    if card is not None and upstreams is not None:
        guard = ControlGuard(ControlStrings(card.control_strings), mode=settings.control_tokens, metrics=metrics)
        preparer = Preparer(bundle, guard, model=model, template_kwargs=settings.template_kwargs)
        pool = Pool(upstreams, metrics=metrics)
        admission = Admission(
            "generations", running=settings.max_running, waiting=settings.max_waiting, metrics=metrics
        )
        metrics.admission_waiting.set_function(lambda: admission.waiting)
        side = EngineSide(pool, preparer, model, admission)
    weigher = Weigher(bundle, recommender, deadline=settings.orchestrator_deadline, metrics=metrics)
    readiness = Readiness(
        pool,
        model=model,
        form=bundle.info.context,
        metrics=metrics,
        timeout=settings.health_timeout,
        on_ready=on_ready,
    )
    weights = Admission("weights", running=settings.max_weights, waiting=0, metrics=metrics)
    return Gateway(settings, bundle, weigher, readiness, metrics, side, weights)


def weights_header(request: Request) -> str | None:
    """The weights in the request's headers; several headers are one."""
    given = request.headers.getlist(HEADER)
    return ",".join(given) if given else None


def failure(gateway: Gateway, error: UpstreamDown) -> ApiError:
    """What a client is told about an engine that failed."""
    if gateway.readiness.draining:
        return Unavailable("the gateway shut down before the answer was complete", code="draining")
    if isinstance(error, UpstreamLate):
        return EngineLate(str(error), code="engine_timeout")
    if error.reason == "broken":
        return Unavailable("the engine died while it was answering", code="engine_down")
    return Unavailable("the engine is down", code="engine_down")


@dataclass(frozen=True)
class Generation:
    """One generation: asks the engine and keeps what the answer must say about the weights."""

    gateway: Gateway
    engine: EngineSide
    request: Request
    decision: Decision
    answer: PooledAnswer

    async def read(self) -> bytes:
        """The whole answer. Raises ApiError when it breaks off, ClientGone when nobody waits for it."""
        try:
            return await until_disconnect(self.request, read_all(self.answer))
        except UpstreamDown as error:
            raise failure(self.gateway, error) from error
        except ClientGone:
            self.count_cancelled()
            raise

    @property
    def streams(self) -> bool:
        """Whether the answer comes as events."""
        return self.answer.status == 200 and self.answer.content_type == EVENT_STREAM

    def count_cancelled(self) -> None:
        """The client has left while the answer was coming."""
        self.gateway.metrics.cancellations.labels("answer").inc()

    def stream(self, body: AsyncIterator[bytes]) -> Response:
        """Events made of the answer's; one more tells of a failure."""
        return RelayResponse(
            self.answer,
            body,
            headers=self.decision.headers(),
            on_failure=lambda error: failure(self.gateway, error),
            on_gone=self.count_cancelled,
        )

    async def relay(self) -> Response:
        """The engine's answer with the preference object in it."""
        preference, headers = self.decision.preference(), self.decision.headers()
        if self.streams:
            return self.stream(relay_events(self.answer.chunks(), preference))
        content = await self.read()
        if self.answer.status == 200:
            content = splice(content, "preference", preference)
        elif self.answer.status >= 500 and not await self.gateway.readiness.check():
            raise Unavailable("the engine is down", code="engine_down")
        elif self.answer.status == 503:
            # The engine is up: its queue is full. To a client that is the same as a full line in front of it.
            self.gateway.metrics.rejections.labels("engine").inc()
            raise Overloaded("too many requests: the engine's queue is full; try again later", code="overloaded")
        return Response(content, self.answer.status, headers=headers, media_type=self.answer.content_type)


class _Asking:
    """One request on its way to the engine; `phase` says how far it has come."""

    def __init__(self, gateway: Gateway, engine: EngineSide, request: Request) -> None:
        self._gateway = gateway
        self._engine = engine
        # Unique in the engine even when a client uses an id twice.
        self._request_id = f"{request.state.request_id}-{uuid.uuid4().hex[:8]}"
        self.phase = "waiting"

    async def ask(self, prepared: Prepared, path: str) -> tuple[Decision, PooledAnswer]:
        """A slot, the weights, the first bytes of the answer. The slot is held until the answer is closed."""
        admission = self._engine.admission
        await admission.enter()
        with ExitStack() as stack:
            stack.callback(admission.leave)
            self.phase = "weights"
            (decision,) = await self._gateway.weigher.decide([prepared.text], prepared.asked)
            body = encode_json(prepared.finish(decision.weights) | {"request_id": self._request_id})
            self.phase = "first_byte"
            answer = await self._engine.upstream.request("POST", path, body)
            answer.closing.push(stack.pop_all())
            return decision, answer


async def start_generation(
    gateway: Gateway, engine: EngineSide, request: Request, prepared: Prepared, path: str
) -> Generation:
    """Decide the weights and send the request. Raises ApiError or ClientGone."""
    if gateway.readiness.engine_blocked is not None:
        raise Unavailable(gateway.readiness.engine_blocked, code="engine_down")
    asking = _Asking(gateway, engine, request)
    try:
        decision, answer = await until_disconnect(request, asking.ask(prepared, path))
    except UpstreamDown as error:
        raise failure(gateway, error) from error
    except ClientGone:
        gateway.metrics.cancellations.labels(asking.phase).inc()
        raise
    return Generation(gateway, engine, request, decision, answer)


async def served_models(gateway: Gateway, engine: EngineSide) -> Response:
    """The engine's models, without the path of the policy. Raises Unavailable."""
    try:
        answer = await engine.upstream.request("GET", "/v1/models")
        content = await read_all(answer)
    except UpstreamDown as error:
        raise failure(gateway, error) from error
    if answer.status == 200:
        models = json.loads(content)
        for model in models["data"]:
            model["root"] = engine.model
        content = encode_json(models)
    return Response(content, answer.status, media_type=answer.content_type)


def event(value: dict[str, Any]) -> bytes:
    """One event of a stream of our own."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n\n"
