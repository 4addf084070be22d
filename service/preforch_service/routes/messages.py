"""`POST /v1/messages` and `/v1/messages/count_tokens`: the engine's, in Anthropic's format, with weights."""

from fastapi import APIRouter, Request, Response

from preforch_service.engine.generation_routes import COUNT_TOKENS, MESSAGES
from preforch_service.gateway import EngineSide, Gateway, carrying_headers, start_generation
from preforch_service.requests.anthropic import request as formats
from preforch_service.routes.openapi import (
    ENGINE_ERRORS,
    SEND_ERRORS,
    described,
    generation_answer,
    json_answer,
)
from preforch_service.routes.plain_route import PlainRoute


def messages_router(gateway: Gateway, engine: EngineSide) -> APIRouter:
    """Anthropic's Messages; only where there is an engine."""
    router = APIRouter(prefix="/v1/messages", route_class=PlainRoute)
    errors = (*SEND_ERRORS, *ENGINE_ERRORS)

    @router.post(
        "",
        **described(
            {200: generation_answer("MessagesAnswer")},
            errors=errors,
            body="MessagesRequest",
            error="AnthropicError",
        ),
    )
    async def messages(request: Request) -> Response:
        """Anthropic's Messages, and `preference_weights`."""
        body = await gateway.read(request)
        prepared = engine.preparer.conversation(formats.MESSAGES, body, carrying_headers(request))
        return await (await start_generation(gateway, engine, request, prepared, MESSAGES)).relay()

    @router.post(
        "/count_tokens",
        **described(
            {200: json_answer("TokenCount")}, errors=errors, body="CountRequest", error="AnthropicError"
        ),
    )
    async def count_tokens(request: Request) -> Response:
        """The length of a prompt in tokens, weights included."""
        body = await gateway.read(request)
        prepared = engine.preparer.conversation(formats.COUNT_TOKENS, body, carrying_headers(request))
        return await (await start_generation(gateway, engine, request, prepared, COUNT_TOKENS)).relay()

    return router
