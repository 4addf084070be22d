"""`GET /v1/models` and `/v1/models/NAME`: what a caller may name as `model`, and what weights do there."""

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request, Response

from preforch_service.engine.pool import PooledAnswer
from preforch_service.engine.upstream import UpstreamDown, read_all
from preforch_service.errors import BadRequest, EngineLate, NotFound, engine_error
from preforch_service.gateway import EngineSide, Gateway, failure
from preforch_service.keys import ApiKey
from preforch_service.requests.body import until_disconnect
from preforch_service.requests.engine_request import encode_json
from preforch_service.routes.openapi import MODEL_PARAMETER, READ_ERRORS, described, json_answer
from preforch_service.routes.plain_route import PlainRoute

Model = dict[str, Any]


def models_router(gateway: Gateway, engine: EngineSide) -> APIRouter:
    """The models in OpenAI's wire format; only where there is an engine."""
    router = APIRouter(prefix="/v1/models", route_class=PlainRoute)
    errors = (*READ_ERRORS, 502, 504)

    @router.get("", **described({200: json_answer("Models")}, errors=errors))
    async def models(request: Request) -> Response:
        """The engine's models, under presets too, that the API key may use, and whether they read weights."""
        return await served_models(gateway, engine, request)

    @router.get(
        # Names of models may hold slashes.
        "/{model:path}",
        **described({200: json_answer("Model")}, errors=(*errors, 404), parameters=[MODEL_PARAMETER]),
    )
    async def model(request: Request) -> Response:
        """One of these models, also under weights of its own."""
        return await served_models(gateway, engine, request, only=request.path_params["model"])

    return router


async def served_models(
    gateway: Gateway, engine: EngineSide, request: Request, *, only: str | None = None
) -> Response:
    """The engine's models that the caller may use, and whether they read weights; or the one called `only`.

    vLLM's `root`, the path of the policy, is replaced by its name. Raises ApiError (NotFound for a model that
    the caller could not ask) or ClientGone.
    """
    caller: ApiKey | None = request.state.caller
    seconds = gateway.settings.health_timeout

    async def ask() -> tuple[PooledAnswer, bytes]:
        async with asyncio.timeout(seconds):
            answer = await engine.upstream.request("GET", "/v1/models")
            return answer, await read_all(answer)

    try:
        answer, content = await until_disconnect(request, ask())
    except UpstreamDown as error:
        raise failure(gateway, error) from error
    except TimeoutError as error:
        raise EngineLate(f"the engine sent nothing for {seconds:g} s", code="engine_timeout") from error
    if answer.status == 200:
        models = json.loads(content)
        models["data"] = [
            model for listed in models["data"] for model in _offered(listed, gateway, engine, caller)
        ]
        content = encode_json(models if only is None else _called(only, models["data"], engine))
    else:
        content = engine_error(answer.status, content)
    return Response(content, answer.status, media_type="application/json")


def _offered(listed: Model, gateway: Gateway, engine: EngineSide, caller: ApiKey | None) -> list[Model]:
    """A model of the engine, and its aliases for presets, as far as the caller may use them."""
    name = listed["id"]
    if name in engine.conditioner.models:
        return []
    presets = gateway.bundles.current.carriers.presets if name == engine.model else {}
    about = {"conditioning": engine.conditioner.kind, **engine.conditioner.about}
    plain = listed | {"root": engine.model, "preference": about}
    offered: list[tuple[str | None, Model]] = [(None, plain)]
    offered += [
        (preset, plain | {"id": f"{name}@{preset}", "preference": about | {"preset": preset}})
        for preset in presets
    ]
    return [model for preset, model in offered if caller is None or caller.may_use(name, preset)]


def _called(name: str, offered: list[Model], engine: EngineSide) -> Model:
    """The model of this name; one with weights after the '@' is listed nowhere, and is the plain one.

    Raises NotFound.
    """
    by_name = {model["id"]: model for model in offered}
    if name in by_name:
        return by_name[name]
    served = ", ".join(map(repr, by_name)) or "none that you may use"
    why = f"served is {served}"
    if engine.model in by_name:
        # Whoever may use it may use it under any weights.
        try:
            engine.preparer.asked_by_name(name)
        except NotFound:
            pass
        except BadRequest as error:
            why = error.message
        else:
            return by_name[engine.model] | {"id": name}
    raise NotFound(f"model {name!r} does not exist; {why}", param="model", code="model_not_found")
