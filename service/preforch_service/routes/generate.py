"""`POST /generate`: a chat completion with a plainer face."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from preforch_service.engine.generation_routes import CHAT
from preforch_service.engine.relay import DONE, event, event_data, events
from preforch_service.gateway import EngineSide, Gateway, Generation, carrying_headers, start_generation
from preforch_service.recommendation.weighing import Decision
from preforch_service.requests.body import validate
from preforch_service.requests.fields import PRESET_FIELD, WEIGHTS_FIELD
from preforch_service.routes.openapi import ENGINE_ERRORS, SEND_ERRORS, described, generation_answer
from preforch_service.routes.plain_route import PlainRoute
from preforch_service.wire import Generated, GenerateRequest

PLAIN_NAMES = {WEIGHTS_FIELD: "weights", PRESET_FIELD: "preset"}


def generated(content: bytes, decision: Decision, effect: Mapping[str, Any]) -> dict[str, Any]:
    """The answer for a complete chat completion."""
    chat = json.loads(content)
    texts = [choice["message"]["content"] or "" for choice in chat["choices"]]
    found = Generated(
        text=texts[0],
        weights=decision.weights,
        source=decision.source,
        **effect,
        finish_reason=chat["choices"][0]["finish_reason"],
        usage=chat["usage"],
        model=chat["model"],
        id=chat["id"],
        texts=texts if len(texts) > 1 else None,
    )
    left_out = {name for name in ("texts", "member", "advice") if getattr(found, name) is None}
    return found.model_dump(exclude=left_out)


async def generated_events(
    chunks: AsyncIterator[bytes], decision: Decision, effect: Mapping[str, Any]
) -> AsyncIterator[bytes]:
    """`{"text"}` events; the first names the weights, the last has `finish_reason` and `usage`."""
    about: dict[str, Any] = {"weights": decision.weights, "source": decision.source, **effect}
    finish: str | None = None
    async for raw in events(chunks):
        data = event_data(raw)
        if data is None:
            continue
        if "error" in data:
            yield event(data)
            break
        for choice in data["choices"]:
            text = choice["delta"].get("content") or ""
            finish = choice.get("finish_reason") or finish
            if text or about:
                first = about | ({"model": data["model"], "id": data["id"]} if about else {})
                yield event({"text": text, "index": choice["index"], **first})
                about = {}
        if data.get("usage") is not None:
            yield event({"text": "", "finish_reason": finish, "usage": data["usage"]})
    yield DONE


async def answer(generation: Generation) -> Response:
    """The engine's answer in our own format; its errors as they are."""
    (decision,), (effect,) = generation.decisions, generation.effects
    if generation.streams:
        return generation.stream(generated_events(generation.answer.chunks(), decision, effect))
    if generation.answer.status != 200:
        return await generation.relay()
    return JSONResponse(generated(generation.content, decision, effect), headers=generation.headers)


def generate_router(gateway: Gateway, engine: EngineSide) -> APIRouter:
    """`POST /generate`; only where there is an engine."""
    router = APIRouter(route_class=PlainRoute)
    about = described(
        {200: generation_answer("Generated")}, errors=(*SEND_ERRORS, *ENGINE_ERRORS), body="GenerateRequest"
    )

    @router.post("/generate", **about)
    async def generate(request: Request) -> Response:
        """Answer a prompt or messages, with the given weights or recommended ones."""
        body = validate(GenerateRequest, await gateway.read(request)).chat_body()
        prepared = engine.preparer.chat(body, carrying_headers(request), names=PLAIN_NAMES)
        return await answer(await start_generation(gateway, engine, request, prepared, CHAT))

    return router
