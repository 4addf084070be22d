"""`POST /v1/responses`: the engine's Responses, with weights."""

from fastapi import APIRouter, Request, Response

from preforch_service.engine.generation_routes import RESPONSES
from preforch_service.gateway import EngineSide, Gateway, carrying_headers, start_generation
from preforch_service.requests.responses.request import RESPONSES as FORMAT
from preforch_service.routes.openapi import ENGINE_ERRORS, SEND_ERRORS, described, generation_answer
from preforch_service.routes.plain_route import PlainRoute


def responses_router(gateway: Gateway, engine: EngineSide) -> APIRouter:
    """OpenAI's Responses, without storage; only where there is an engine."""
    router = APIRouter(prefix="/v1", route_class=PlainRoute)
    errors = (*SEND_ERRORS, *ENGINE_ERRORS)

    @router.post(
        "/responses",
        **described({200: generation_answer("ResponsesAnswer")}, errors=errors, body="ResponsesRequest"),
    )
    async def responses(request: Request) -> Response:
        """OpenAI's Responses, of which none is stored, and `preference_weights`."""
        body = await gateway.read(request)
        prepared = engine.preparer.conversation(FORMAT, body, carrying_headers(request))
        return await (await start_generation(gateway, engine, request, prepared, RESPONSES)).relay()

    return router
