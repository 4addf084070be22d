"""Errors that a client sees, and the one place that turns them into OpenAI's error shape.

ApiError
  BadRequest         400  `param` names the field
  NotFound           404
  TooLarge           413
  WrongContentType   415
  Unavailable        503  with Retry-After
    Overloaded       429  with Retry-After
  EngineLate         504
ClientGone           nobody is left to answer
"""

from http import HTTPStatus

from fastapi.responses import JSONResponse


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
        """Headers that go with the answer."""
        return {}


class BadRequest(ApiError):
    """The request cannot be served as it is."""

    status = 400
    type = "invalid_request_error"


class NotFound(BadRequest):
    """No such model."""

    status = 404


class TooLarge(BadRequest):
    """The body is over the limit."""

    status = 413


class WrongContentType(BadRequest):
    """The body is not announced as JSON."""

    status = 415


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
    """OpenAI's error shape."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_response(error: ApiError) -> JSONResponse:
    """The HTTP answer for an error."""
    return JSONResponse(error_body(error), status_code=error.status, headers=error.headers)


def from_status(status: int, detail: str | None = None) -> ApiError:
    """The error for a bare HTTP status, such as the router's 404 and 405."""
    error = BadRequest(detail or HTTPStatus(status).phrase) if status < 500 else ApiError(detail or "internal error")
    error.status = status
    return error
