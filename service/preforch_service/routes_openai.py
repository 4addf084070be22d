"""OpenAI's routes: the engine's, with weights."""

from fastapi import APIRouter, Request, Response

from preforch_service.gateway import EngineSide, Gateway, served_models, start_generation, weights_header


def openai_router(gateway: Gateway, engine: EngineSide) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1")
    body_is_json = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}

    @router.post("/chat/completions", openapi_extra=body_is_json)
    async def chat(request: Request) -> Response:
        """OpenAI's chat completions, and `preference_weights`."""
        prepared = engine.preparer.chat(await gateway.read(request), weights_header(request))
        return await (await start_generation(gateway, engine, request, prepared, "/v1/chat/completions")).relay()

    @router.post("/completions", openapi_extra=body_is_json)
    async def completions(request: Request) -> Response:
        """OpenAI's completions of one string prompt, and `preference_weights`; the context is appended."""
        prepared = engine.preparer.completion(await gateway.read(request), weights_header(request))
        return await (await start_generation(gateway, engine, request, prepared, "/v1/completions")).relay()

    @router.get("/models")
    async def models(request: Request) -> Response:
        """The engine's models that the API key may use."""
        return await served_models(gateway, engine, request.state.caller)

    return router
