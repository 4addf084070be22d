"""`POST /weights` and `GET /objectives`."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from preforch_service.gateway import Gateway, weights_header
from preforch_service.middleware.observer import observation_of
from preforch_service.recommendation.weighing import HEADER, Decision, combine_carriers
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


def recommended(decision: Decision) -> dict[str, Any]:
    """One result."""
    found = Recommended.model_validate({**decision.preference(), **decision.certainty()})
    return found.model_dump(exclude=set() if decision.reason else {"reason"})


def weights_router(gateway: Gateway) -> APIRouter:
    """`POST /weights` and `GET /objectives`."""
    router = APIRouter(route_class=PlainRoute)
    answer = json_answer("Recommended", "ManyRecommended")
    answer["headers"] = {IGNORED_HEADER: ref(IGNORED_HEADER, kind="headers")}

    @router.post("/weights", **described({200: answer}, errors=SEND_ERRORS, body="WeightsRequest"))
    async def weights(request: Request) -> Response:
        """Weights for a prompt, a conversation, or up to 256 inputs."""
        asked_for = validate(WeightsRequest, await gateway.read(request))
        carriers = {"weights": asked_for.weights, HEADER: weights_header(request)}
        ignored = Ignored(gateway.settings.unknown_fields)
        texts = [text_of_input(given, ignored) for given in asked_for.each()]
        ignored.count(gateway.metrics.ignored_fields)
        async with gateway.weights_admission.slot():
            with gateway.bundles.lease() as loaded:
                asked = combine_carriers(carriers, loaded.bundle.names)
                deciding = loaded.weigher.decide(texts, asked)
                decisions = await until_disconnect(request, observation_of(request).track_decisions(deciding))
        results = [recommended(decision) for decision in decisions]
        single = asked_for.inputs is None
        found = results[0] if single else {"results": results, "bundle": loaded.bundle.revision}
        return JSONResponse(found, headers=ignored.headers())

    @router.get("/objectives", **described({200: json_answer("Objectives")}, errors=READ_ERRORS))
    async def objectives(_request: Request) -> Response:
        """What can be weighed, in order, and the weights used where the orchestrator does not answer."""
        bundle = gateway.bundles.current.bundle
        info = bundle.info
        listed = [
            {"name": o.name, "description": o.description, "bounds": [o.low, o.high]} for o in info.objectives
        ]
        fallback = {name: round(value, 6) for name, value in info.fallback.items()}
        return JSONResponse({"objectives": listed, "fallback": fallback, "bundle": bundle.revision})

    return router
