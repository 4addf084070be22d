"""Reads JSON bodies: announced as JSON, within the limits, one object. Watches for clients that leave."""

import asyncio
import json
import re
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
from preforch_models.objectives import explain
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from preforch_service.errors import BadRequest, ClientGone, TooSlow, WrongContentType
from preforch_service.requests.compression import gunzip_for
from preforch_service.requests.limits import RequestLimits

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

# Possessive, and a string may lack its end: no text makes it try anything twice.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_OPENING, _CLOSING = b"[{", b"]}"
_NO_MARKS = bytes(set(range(256)) - set(_OPENING + _CLOSING + b","))


async def read_json(request: Request, limits: RequestLimits) -> dict[str, Any]:
    """The body as a JSON object.

    Raises BadRequest, TooLarge, TooSlow, WrongContentType, WrongContentEncoding or ClientGone.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise WrongContentType(f"Content-Type must be application/json, got {media_type or 'none'!r}")
    raw = await _read_bytes(request, limits)
    check_shape(raw, limits)
    try:
        # UTF-8 only: json.loads would guess other encodings, whose brackets were not counted.
        body = json.loads(raw.decode("utf-8-sig", "surrogatepass"))
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, got {type(body).__name__}", code="invalid_json")
    # Nothing else can stand for a surrogate, and the whole body need not be written again to find none.
    if b"\\u" in raw or b"\xed" in raw:
        check_encodable(body)
    limits.check(body)
    return body


async def _read_bytes(request: Request, limits: RequestLimits) -> bytes:
    """The body, inflated where it is compressed. It is within the limit in both forms."""
    limits.check_length(request.headers.get("content-length"))
    gunzip = gunzip_for(request.headers)
    received, most = 0, limits.max_body_bytes
    raw = bytearray()
    try:
        async with asyncio.timeout(limits.receive_timeout):
            async for chunk in request.stream():
                received += len(chunk)
                raw += chunk if gunzip is None else gunzip.content(chunk, most + 1 - len(raw))
                if max(received, len(raw)) > most:
                    raise limits.too_large("more")
    except ClientDisconnect as error:
        raise ClientGone from error
    except TimeoutError as error:
        message = f"the body did not come within {limits.receive_timeout:g} s"
        raise TooSlow(message, code="request_timeout") from error
    if gunzip is not None:
        gunzip.check_end()
    return bytes(raw)


def check_shape(raw: bytes, limits: RequestLimits) -> None:
    """Raise BadRequest for JSON that is nested too deeply or has too many entries, without parsing it."""
    opened = sum(map(raw.count, (b"[", b"{")))
    # Brackets and commas in strings count as well here, so that few need a closer look.
    if opened <= limits.max_depth and opened + raw.count(b",") <= limits.max_values:
        return
    marks = np.frombuffer(_STRINGS.sub(b"", raw).translate(None, _NO_MARKS), np.uint8)
    opening, closing = np.isin(marks, list(_OPENING)), np.isin(marks, list(_CLOSING))
    depth = int(np.cumsum(opening.astype(int) - closing).max(initial=0))
    if depth > limits.max_depth:
        message = f"the JSON is nested too deeply: {depth} levels, at most {limits.max_depth} are allowed"
        raise BadRequest(message, code="invalid_json")
    values = int(np.count_nonzero(~closing))
    if values > limits.max_values:
        message = f"the JSON has about {values} values, at most {limits.max_values} are allowed"
        raise BadRequest(message, code="limit_exceeded")


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
    """The result of the work, which is cancelled when the client leaves first; then ClientGone is raised."""
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    waiting, left = True, False

    def leave(watcher: asyncio.Task[None]) -> None:
        nonlocal left
        if waiting and not watcher.cancelled():
            left = True
            task.cancel()

    watcher = asyncio.create_task(_disconnected(request))
    watcher.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        # Somebody else may have cancelled it, too.
        if left and not task.uncancel():
            raise ClientGone from None
        raise
    finally:
        waiting = False
        watcher.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
