"""What can go wrong between a caller and the gateway.

PreferenceError
├── BadRequest (also a ValueError)   the gateway refused what was sent: 400, 404, 409, 413, 422, ...
│   └── AccessDenied                 401, 403: the API key
├── ServiceUnavailable               could not answer now; `retry_after` seconds if known: 429, 503
│   └── ServiceUnreachable           no connection, a timeout, or a stream that broke off
└── ServiceFailed                    an answer nobody wanted: other 5xx, an error in a stream, not our JSON

In:  status, headers and body of an answer (OpenAI's error shape).
Out: the exception to raise.
"""

import json
from collections.abc import Mapping

from preforch_client.retries import retry_after


class PreferenceError(Exception):
    """Base of everything this client raises about an exchange with the gateway."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        param: str | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        facts = {"HTTP": self.status, "param": self.param, "request": self.request_id}
        known = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
        return f"{self.message} ({known})" if known else self.message


class BadRequest(PreferenceError, ValueError):
    """The gateway refused what was sent; `param` names the field."""


class AccessDenied(BadRequest):
    """The API key is missing, wrong or not allowed to do this."""


class ServiceUnavailable(PreferenceError):
    """The gateway is overloaded, draining or not ready; trying again later may help."""


class ServiceUnreachable(ServiceUnavailable):
    """No answer at all: connection refused, timed out or broken off."""


class ServiceFailed(PreferenceError):
    """The gateway or its engine failed, or the answer is not one of a gateway."""


def error_of(status: int, headers: Mapping[str, str], content: bytes) -> PreferenceError:
    """The exception for an answer with an error status. `headers` ignore case, as those of httpx do."""
    fields = _error_fields(_json(content))
    message = (
        _text_field(fields, "message") or content.decode("utf-8", "replace").strip()[:200] or "no message"
    )
    return _class_of(status)(
        message,
        status=status,
        param=_text_field(fields, "param"),
        code=_text_field(fields, "code"),
        request_id=headers.get("X-Request-Id"),
        retry_after=retry_after(headers),
    )


def stream_error(event: bytes, request_id: str | None) -> ServiceFailed | None:
    """The exception for an error event inside a stream, whose status was 200 long ago.

    None for other events.
    """
    # Nearly no event is an error; the others need not be parsed twice.
    fields = _error_fields(_json(event)) if b'"error"' in event else None
    if fields is None:
        return None
    message = _text_field(fields, "message") or "the stream ended with an error"
    return ServiceFailed(
        message, param=_text_field(fields, "param"), code=_text_field(fields, "code"), request_id=request_id
    )


def _json(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _error_fields(body: object) -> Mapping[str, object] | None:
    """The `error` object of a body in OpenAI's shape, or None."""
    error = body.get("error") if isinstance(body, Mapping) else None
    return error if isinstance(error, Mapping) or error is None else {"message": error}


def _text_field(fields: Mapping[str, object] | None, name: str) -> str | None:
    """A field as text; None where it is absent or null."""
    value = (fields or {}).get(name)
    return None if value is None else str(value)


def _class_of(status: int) -> type[PreferenceError]:
    if status in (401, 403):
        return AccessDenied
    if status in (429, 503):
        return ServiceUnavailable
    return BadRequest if 400 <= status < 500 else ServiceFailed
