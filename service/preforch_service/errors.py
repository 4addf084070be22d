"""Errors that a client sees, and the one place that turns them into OpenAI's error shape, or Anthropic's.

ApiError
  BadRequest         400  `param` names the field
  Unauthorized       401  with WWW-Authenticate
  Forbidden          403
  NotFound           404
  TooSlow            408
  TooLarge           413
  WrongContentType   415
  WrongContentEncoding  415  with Accept-Encoding
  RateLimited        429  with Retry-After
  BundleRefused      422  the bundle of a reload; the old one keeps serving
  Unavailable        503  with Retry-After
    Overloaded       429  with Retry-After
  EngineLate         504
ClientGone           nobody is left to answer
"""

import json
from http import HTTPStatus

from starlette.responses import JSONResponse

SHAPE = frozenset({"message", "type", "param", "code"})
MAX_ENGINE_MESSAGE = 2000
NO_TOOL_PARSER = b'--tool-call-parser to be set"'
"""How vLLM's message ends, where a model may or must call tools and it was not told how to read the calls."""
ANTHROPIC = "/v1/messages"
"""At this path and below it errors have Anthropic's shape."""
ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """An answer with an error status."""

    status = 500
    type = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code

    @property
    def headers(self) -> dict[str, str]:
        """Sent with the answer, beside those that every answer has."""
        return {}


class BadRequest(ApiError):
    """The request cannot be served as it is."""

    status = 400
    type = "invalid_request_error"


class Unauthorized(BadRequest):
    """No API key, or a wrong one."""

    status = 401

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_api_key")

    @property
    def headers(self) -> dict[str, str]:
        """How to say who one is."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(BadRequest):
    """The API key does not allow it."""

    status = 403


class NotFound(BadRequest):
    """No such model."""

    status = 404


class TooSlow(BadRequest):
    """The body did not come in time."""

    status = 408

    @property
    def headers(self) -> dict[str, str]:
        """What is left of the body is not waited for."""
        return {"Connection": "close"}


class TooLarge(BadRequest):
    """The body is over the limit."""

    status = 413


class WrongContentType(BadRequest):
    """The body is not announced as JSON."""

    status = 415


class WrongContentEncoding(BadRequest):
    """The body is compressed in a way that is not read here."""

    status = 415

    @property
    def headers(self) -> dict[str, str]:
        """What is read."""
        return {"Accept-Encoding": "gzip, identity"}


class RateLimited(ApiError):
    """Too many requests of one API key."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, code="rate_limit_exceeded")
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """When to come back."""
        return {"Retry-After": str(self.retry_after)}


class BundleRefused(BadRequest):
    """The bundle to reload is not usable."""

    status = 422


class Unavailable(ApiError):
    """Not now: loading, draining, or the engine is down."""

    status = 503
    type = "service_unavailable"
    retry_after = 2

    @property
    def headers(self) -> dict[str, str]:
        """When to come back."""
        return {"Retry-After": str(self.retry_after)}


class Overloaded(Unavailable):
    """More than is allowed at once: here, or in the engine."""

    status = 429
    type = "rate_limit_error"


class EngineLate(ApiError):
    """The engine holds the connection and sends nothing."""

    status = 504
    type = "timeout_error"


class ClientGone(Exception):
    """The client has closed its connection."""


def error_body(error: ApiError) -> dict[str, dict[str, str | None]]:
    """OpenAI's error shape: `{"error": {message, type, param, code}}`."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def anthropic_error(error: ApiError) -> dict[str, object]:
    """Anthropic's error shape, `{"type": "error", "error": {type, message}}`: the message names the field."""
    default = "invalid_request_error" if error.status < 500 else "api_error"
    named = error.param is None or error.param in error.message
    message = error.message if named else f"{error.param}: {error.message}"
    return {
        "type": "error",
        "error": {"type": ANTHROPIC_TYPES.get(error.status, default), "message": message},
    }


def no_tool_parser() -> BadRequest:
    """vLLM's own message names a flag of vLLM, which is no use to a client."""
    return BadRequest(
        "the engine has no parser for tool calls, so that tools are served with tool_choice 'none' alone "
        "('auto' is the default where there are tools); the operator sets one with --tool-call-parser of "
        "`preforch serve` or `preforch engine-args`",
        param="tool_choice",
        code="no_tool_parser",
    )


def _is_anthropic(path: str) -> bool:
    return path == ANTHROPIC or path.startswith(f"{ANTHROPIC}/")


def error_response(error: ApiError, path: str = "") -> JSONResponse:
    """The error in the shape of the path's format, with its status and headers."""
    body = anthropic_error(error) if _is_anthropic(path) else error_body(error)
    return JSONResponse(body, status_code=error.status, headers=error.headers)


def says_no_tool_parser(content: bytes) -> bool:
    """Whether an error answer of the engine is that it has no parser for calls of tools."""
    return NO_TOOL_PARSER in content


def engine_error(status: int, content: bytes, path: str = "") -> bytes:
    """An error answer of the engine in the shape of the path's format.

    One that has OpenAI's already stays as it is, byte for byte, where that is wanted, but for what only an
    operator would understand.
    """
    shaped = _openai_engine_error(status, content)
    if not _is_anthropic(path):
        return shaped
    given = json.loads(shaped)["error"]
    error = from_status(status, given["message"], param=given["param"])
    return json.dumps(anthropic_error(error), ensure_ascii=False).encode("utf-8", "replace")


def _openai_engine_error(status: int, content: bytes) -> bytes:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    given = body.get("error") if isinstance(body, dict) else None
    if says_no_tool_parser(content):
        return json.dumps(error_body(no_tool_parser())).encode()
    if isinstance(given, dict) and isinstance(given.get("message"), str) and given.keys() >= SHAPE:
        return content
    fields = given if isinstance(given, dict) else body if isinstance(body, dict) else {}
    text = next((fields[key] for key in ("message", "detail") if fields.get(key)), given or body)
    text = text or content.decode("utf-8", "replace").strip() or f"the engine answered {status}"
    message = text if isinstance(text, str) else json.dumps(text)
    shaped = error_body(from_status(status, message[:MAX_ENGINE_MESSAGE]))["error"]
    known = {key: fields[key] for key in ("type", "param", "code") if isinstance(fields.get(key), str | int)}
    return json.dumps({"error": shaped | known}, ensure_ascii=False).encode("utf-8", "replace")


def from_status(status: int, detail: str | None = None, *, param: str | None = None) -> ApiError:
    """The error for a bare HTTP status, such as the router's 404 and 405."""
    message = detail or (HTTPStatus(status).phrase if status < 500 else "internal error")
    error = (BadRequest if status < 500 else ApiError)(message, param=param)
    error.status = status
    return error
