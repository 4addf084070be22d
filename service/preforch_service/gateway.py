"""The parts of a running gateway, as the routes use them."""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from preforch_models.control_strings import ControlStrings
from preforch_models.policy_card import PolicyCard
from starlette.requests import Request
from starlette.responses import Response

from preforch_service.conditioning import Conditioner, conditioner_of
from preforch_service.engine.admission import Admission
from preforch_service.engine.generation_routes import GenerationRoute
from preforch_service.engine.pool import Pool, PooledAnswer
from preforch_service.engine.readiness import Readiness
from preforch_service.engine.relay import RelayResponse, relay_events, rewritten_events, splice
from preforch_service.engine.upstream import Upstream, UpstreamDown, UpstreamLate, read_all, streams
from preforch_service.errors import (
    ApiError,
    EngineLate,
    Forbidden,
    Overloaded,
    Unavailable,
    engine_error,
    no_tool_parser,
)
from preforch_service.keys import ApiKey
from preforch_service.middleware.edge import InFlight
from preforch_service.middleware.observer import Observation, observation_of
from preforch_service.recommendation.active_bundle import InForce
from preforch_service.recommendation.carriers import Asked
from preforch_service.recommendation.reloading import Reloader
from preforch_service.recommendation.weighing import (
    APPLIED_HEADER,
    HEADER,
    PRESET_HEADER,
    Decision,
    announcement,
)
from preforch_service.requests.body import read_json, until_disconnect
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.engine_request import Prepared, Preparer, encode_json
from preforch_service.settings import ServeSettings
from preforch_service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    # The SDK is loaded only where traces are wanted.
    from preforch_service.telemetry.tracing import Tracing


@dataclass(frozen=True)
class EngineSide:
    """What is there only with a language model."""

    upstream: Pool
    preparer: Preparer
    conditioner: Conditioner
    model: str
    admission: Admission


@dataclass(frozen=True)
class Gateway:
    """Everything that a request needs. `engine` is None where only weights are served."""

    settings: ServeSettings
    bundles: InForce
    reloader: Reloader
    readiness: Readiness
    metrics: Metrics
    engine: EngineSide | None
    weights_admission: Admission
    tracing: "Tracing | None" = None
    in_flight: InFlight = field(default_factory=InFlight)

    async def read(self, request: Request) -> dict[str, Any]:
        """The JSON body of a request."""
        return await read_json(request, self.settings)


def build_gateway(
    settings: ServeSettings,
    bundles: InForce,
    *,
    metrics: Metrics,
    card: PolicyCard | None = None,
    upstreams: Mapping[str, Upstream] | None = None,
    tracing: "Tracing | None" = None,
    on_ready: Callable[[], None] = lambda: None,
) -> Gateway:
    """Put the parts together; card and upstreams (by name) come together, or not at all for weights only."""
    assert (card is None) == (upstreams is None), "an engine comes with the card of its policy"
    model = "" if card is None else settings.served_model_name or card.name
    side = None
    pool = None
    conditioner = None
    if card is not None and upstreams is not None:
        guard = ControlGuard(
            ControlStrings(card.control_strings), mode=settings.control_tokens, metrics=metrics
        )
        conditioner = conditioner_of(card)
        preparer = Preparer(
            conditioner,
            guard,
            card=card,
            carriers=bundles.current.carriers,
            model=model,
            template_kwargs=settings.template_kwargs,
            unknown_fields=settings.unknown_fields,
        )
        pool = Pool(upstreams, metrics=metrics)
        admission = Admission(
            "generations", running=settings.max_running, waiting=settings.max_waiting, metrics=metrics
        )
        metrics.admission_waiting.set_function(lambda: admission.waiting)
        side = EngineSide(pool, preparer, conditioner, model, admission)
    readiness = Readiness(
        pool,
        model=model,
        card=card,
        conditioner=conditioner,
        metrics=metrics,
        timeout=settings.health_timeout,
        on_ready=on_ready,
    )
    reloader = Reloader(settings, bundles, readiness, metrics)
    weights = Admission("weights", running=settings.max_weights, waiting=0, metrics=metrics)
    metrics.use_bundle(bundles.current.bundle)
    # Alerts are about shares of them.
    metrics.orchestrator_deadline.set(settings.orchestrator_deadline)
    metrics.orchestrator_queue_limit.set(settings.orchestrator_queue)
    metrics.admission_waiting_limit.set(settings.max_waiting)
    return Gateway(settings, bundles, reloader, readiness, metrics, side, weights, tracing)


def carrying_headers(request: Request) -> dict[str, str]:
    """Those of the request's headers that name weights or a preset; several of one name are one."""
    given = {name: request.headers.getlist(name) for name in (HEADER, PRESET_HEADER)}
    return {name: ",".join(values) for name, values in given.items() if values}


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
    """One generation: the engine's answer, and what it must say about the weights.

    `decisions`, `effects`: of each prompt the weights, and what they have to do with the answer. `content`:
    the whole answer, empty where it comes as events.
    """

    gateway: Gateway
    route: GenerationRoute
    request: Request
    prepared: Prepared
    decisions: tuple[Decision, ...]
    effects: tuple[dict[str, Any], ...]
    answer: PooledAnswer
    content: bytes

    async def _engine_works(self) -> bool:
        """Whether the engine that answered takes requests. Raises ClientGone when nobody waits for that."""
        return await until_disconnect(self.request, self.gateway.readiness.look_at(self.answer.member))

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says about the weights and about dropped fields, as response headers."""
        _, announced = announcement(self.decisions, self.effects)
        return announced | applied_header(self.effects[0]) | self.prepared.ignored.headers()

    @property
    def streams(self) -> bool:
        """Whether the answer comes as events."""
        return streams(self.answer)

    def stream(self, body: AsyncIterator[bytes]) -> Response:
        """Events made of the answer's; one more tells of a failure."""
        return RelayResponse(
            self.answer,
            body,
            headers=self.headers,
            keep_alive=self.gateway.settings.sse_keep_alive,
            on_failure=lambda error, last: self.route.end(failure(self.gateway, error), last),
        )

    async def relay(self) -> Response:
        """The engine's answer with the preference object in it."""
        preference, _ = announcement(self.decisions, self.effects)
        rewrite = self.prepared.rewrite
        if self.streams:
            carries, inside = self.route.carries, self.route.inside
            chunks = self.answer.chunks()
            body = chunks if rewrite is None else rewritten_events(chunks, rewrite)
            return self.stream(relay_events(body, preference, carries=carries, inside=inside))
        content = self.content
        if self.answer.status == 200:
            content = content if rewrite is None else encode_json(rewrite(json.loads(content)))
            content = splice(content, "preference", preference)
        elif self.answer.status >= 500 and not await self._engine_works():
            raise Unavailable("the engine is down", code="engine_down")
        elif self.answer.status == 503:
            # The engine is up: its queue is full. To a client that is the same as a full line in front of it.
            self.gateway.metrics.rejections.labels("engine").inc()
            raise Overloaded(
                "too many requests: the engine's queue is full; try again later", code="overloaded"
            )
        else:
            content = engine_error(self.answer.status, content, self.route.path)
        return Response(content, self.answer.status, headers=self.headers, media_type="application/json")


def applied_header(effect: Mapping[str, Any]) -> dict[str, str]:
    """What the headers say of weights that the policy does not follow, or need not."""
    if effect.get("advice"):
        return {APPLIED_HEADER: "advice"}
    return {} if effect["applied"] else {APPLIED_HEADER: "false"}


async def _ask(
    gateway: Gateway,
    engine: EngineSide,
    seen: Observation,
    prepared: Prepared,
    route: GenerationRoute,
    caller: ApiKey | None,
    engine_id: str,
) -> tuple[list[Decision], PooledAnswer, bytes]:
    """A slot, the weights of each prompt, the answer: whole, or the beginning of a stream.

    The slot is held until it is closed.
    """
    await engine.admission.enter()
    with ExitStack() as stack:
        stack.callback(engine.admission.leave)
        with gateway.bundles.lease() as loaded:
            deciding = loaded.weigher.decide(prepared.texts, prepared.asked, caller=caller)
            decisions = await seen.track_decisions(deciding)
        fields = prepared.finish([decision.weights for decision in decisions])
        if route.token_limit is not None:
            fields = gateway.settings.within_tokens(fields, route.token_limit)
        body = encode_json({**fields, **route.ours(engine_id, None if caller is None else caller.salt)})
        headers = {**seen.asks_engine(route.path), **route.headers(engine_id)}
        answer = await engine.upstream.request("POST", route.path, body, headers=headers)
        seen.engine_answered(answer.status)
        answer.closing.push(stack.pop_all())
        return decisions, answer, b"" if streams(answer) else await read_all(answer)


def check_model(model: str, caller: ApiKey | None, asked: Asked) -> None:
    """Raise Forbidden where the caller's key does not allow the model under what is asked for."""
    if caller is None or caller.may_use(model, asked.preset_alone):
        return
    message = f"API key {caller.name!r} may not use model {model!r}"
    under = [name for name in caller.models or () if name.startswith(f"{model}@")]
    if under:
        message += f", but without weights of its own {under}"
    raise Forbidden(message, param="model", code="model_not_found")


async def start_generation(
    gateway: Gateway, engine: EngineSide, request: Request, prepared: Prepared, route: GenerationRoute
) -> Generation:
    """Decide the weights and ask the engine. Raises ApiError or ClientGone."""
    caller: ApiKey | None = request.state.caller
    check_model(engine.model, caller, prepared.asked or Asked())
    if gateway.readiness.engine_blocked is not None:
        raise Unavailable(gateway.readiness.engine_blocked, code="engine_down")
    if prepared.calls_tools and not (route.refuses_calls or engine.upstream.parses_tool_calls):
        raise no_tool_parser()
    prepared.ignored.count(gateway.metrics.ignored_fields)
    # Unique in the engine even when a client uses an id twice.
    engine_id = f"{request.state.request_id}-{secrets.token_hex(4)}"
    asking = _ask(gateway, engine, observation_of(request), prepared, route, caller, engine_id)
    try:
        decisions, answer, content = await until_disconnect(request, asking)
    except UpstreamDown as error:
        raise failure(gateway, error) from error
    effects = tuple(engine.conditioner.effect(decision.weights) for decision in decisions)
    return Generation(gateway, route, request, prepared, tuple(decisions), effects, answer, content)
