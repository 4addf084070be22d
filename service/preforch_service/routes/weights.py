"""`POST /weights` and `GET /objectives`."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from preforch_service.gateway import Gateway, carrying_headers
from preforch_service.keys import ApiKey
from preforch_service.middleware.observer import observation_of
from preforch_service.recommendation.weighing import HEADER, PRESET_HEADER, Decision
from preforch_service.requests.body import until_disconnect, validate
from preforch_service.requests.ignored import IGNORED_HEADER, Ignored
from preforch_service.requests.messages import orchestrator_text, read_messages
from preforch_service.routes.openapi import READ_ERRORS, SEND_ERRORS, described, json_answer
from preforch_service.routes.openapi_schemas import ref
from preforch_service.routes.plain_route import PlainRoute
from preforch_service.wire import Messages, Recommended, WeightsRequest


def text_of_input(given: str | Messages, ignored: Ignored) -> str:
    """What the orchestrator reads of one input. What of its messages is dropped is noted in `ignored`."""
    return given if isinstance(given, str) else orchestrator_text(read_messages(given, ignored))


def recommended(decision: Decision, *, explain: bool) -> dict[str, Any]:
    """One result."""
    steps = {"steps": decision.explanation()} if explain else {}
    found = Recommended.model_validate({**decision.preference(), **decision.certainty(), **steps})
    return found.model_dump(
        exclude={name for name in ("reason", "preset", "steps") if getattr(found, name) is None}
    )


def weights_router(gateway: Gateway) -> APIRouter:
    """`POST /weights` and `GET /objectives`."""
    router = APIRouter(route_class=PlainRoute)
    answer = json_answer("Recommended", "ManyRecommended")
    answer["headers"] = {IGNORED_HEADER: ref(IGNORED_HEADER, kind="headers")}

    @router.post("/weights", **described({200: answer}, errors=SEND_ERRORS, body="WeightsRequest"))
    async def weights(request: Request) -> Response:
        """Weights for a prompt, a conversation, or up to 256 inputs."""
        asked_for = validate(WeightsRequest, await gateway.read(request))
        headers = carrying_headers(request)
        given = {"weights": asked_for.weights, HEADER: headers.get(HEADER)}
        presets = {"preset": asked_for.preset, PRESET_HEADER: headers.get(PRESET_HEADER)}
        ignored = Ignored(gateway.settings.unknown_fields)
        texts = [text_of_input(one, ignored) for one in asked_for.each()]
        ignored.count(gateway.metrics.ignored_fields)
        async with gateway.weights_admission.slot():
            with gateway.bundles.lease() as loaded:
                asked = loaded.carriers.read(given, presets)
                deciding = loaded.weigher.decide(texts, asked, caller=request.state.caller)
                decisions = await until_disconnect(request, observation_of(request).track_decisions(deciding))
        results = [recommended(decision, explain=asked_for.explain) for decision in decisions]
        single = asked_for.inputs is None
        found = results[0] if single else {"results": results, "bundle": loaded.bundle.revision}
        return JSONResponse(found, headers=ignored.headers())

    @router.get("/objectives", **described({200: json_answer("Objectives")}, errors=READ_ERRORS))
    async def objectives(request: Request) -> Response:
        """What can be weighed, in order and within which bounds; presets; weights used for want of better."""
        caller: ApiKey | None = request.state.caller
        loaded = gateway.bundles.current
        listed = [
            {"name": o.name, "description": o.description, "bounds": [o.low, o.high]}
            for o in loaded.bounds.of(caller)
        ]
        fallback = {name: round(value, 6) for name, value in loaded.bundle.info.fallback.items()}
        presets = {name: given.weights for name, given in loaded.carriers.presets.items()}
        answer = {"objectives": listed, "fallback": fallback, "presets": presets}
        return JSONResponse(answer | {"bundle": loaded.bundle.revision})

    return router
