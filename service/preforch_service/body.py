"""Reads JSON bodies: announced as JSON, within the size limit, one object. Watches for clients that leave."""

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from preforch_models.objectives import explain
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from preforch_service.errors import BadRequest, ClientGone, TooLarge, WrongContentType

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


async def read_json(request: Request, *, limit: int) -> dict[str, Any]:
    """The body as a JSON object. Raises BadRequest, TooLarge, WrongContentType or ClientGone."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise WrongContentType(f"Content-Type must be application/json, got {media_type or 'none'!r}")
    if "upgrade" in ",".join(request.headers.getlist("connection")).lower():
        # uvicorn reads no body after such a head, so that waiting for one would never end.
        raise BadRequest("the connection cannot be upgraded", param="Connection", code="upgrade_not_supported")
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > limit:
                raise TooLarge(f"the body is larger than {limit} bytes")
    except ClientDisconnect as error:
        raise ClientGone from error
    try:
        body = json.loads(bytes(raw))
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, got {type(body).__name__}", code="invalid_json")
    check_encodable(body)
    return body


def check_encodable(value: object) -> None:
    """JSON can be read that cannot be written again, nor quoted in an error. Raises BadRequest for it."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest("the JSON holds a lone surrogate, which is not text", code="invalid_json") from error
    except RecursionError as error:
        raise _too_deep() from error


def _too_deep() -> BadRequest:
    return BadRequest("the JSON is nested too deeply", code="invalid_json")


def validate(model: type[Model], body: dict[str, Any]) -> Model:
    """The body as a typed request. Raises BadRequest naming the first wrong field."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        location = error.errors(include_url=False)[0]["loc"]
        param = ".".join(str(part) for part in location) or None
        raise BadRequest(explain(error), param=param) from error


async def until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work; the work is cancelled and ClientGone raised when the client leaves first."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for pending in (task, watcher):
            if not pending.done():
                pending.cancel()
                with suppress(asyncio.CancelledError):
                    await pending


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
