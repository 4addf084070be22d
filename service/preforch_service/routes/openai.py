"""OpenAI's routes: the engine's, with weights."""

from fastapi import APIRouter, Request, Response

from preforch_service.engine.generation_routes import CHAT, COMPLETIONS
from preforch_service.gateway import EngineSide, Gateway, carrying_headers, start_generation
from preforch_service.routes.openapi import ENGINE_ERRORS, SEND_ERRORS, described, generation_answer
from preforch_service.routes.plain_route import PlainRoute


def openai_router(gateway: Gateway, engine: EngineSide) -> APIRouter:
    """Chat and completions in OpenAI's wire format; only where there is an engine."""
    router = APIRouter(prefix="/v1", route_class=PlainRoute)
    errors = (*SEND_ERRORS, *ENGINE_ERRORS)

    @router.post(
        "/chat/completions",
        **described({200: generation_answer("ChatAnswer")}, errors=errors, body="ChatRequest"),
    )
    async def chat(request: Request) -> Response:
        """OpenAI's chat completions, and `preference_weights`."""
        prepared = engine.preparer.chat(await gateway.read(request), carrying_headers(request))
        return await (await start_generation(gateway, engine, request, prepared, CHAT)).relay()

    @router.post(
        "/completions",
        **described({200: generation_answer("CompletionAnswer")}, errors=errors, body="CompletionRequest"),
    )
    async def completions(request: Request) -> Response:
        """OpenAI's completions of one string prompt, and `preference_weights`."""
        prepared = engine.preparer.completion(await gateway.read(request), carrying_headers(request))
        return await (await start_generation(gateway, engine, request, prepared, COMPLETIONS)).relay()

    return router
