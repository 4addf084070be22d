"""The OpenAPI document.

In:  what each route declares in its decorator (`described`), the objectives of the bundle, and the limits of
     a request.
Out: keyword arguments for the decorator; and the document with what all operations share (`complete`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from preforch_service.recommendation.weighing import APPLIED_HEADER, HEADER, PRESET_HEADER, SOURCE_HEADER
from preforch_service.requests.ignored import IGNORED_HEADER
from preforch_service.routes.openapi_formats import format_schemas
from preforch_service.routes.openapi_schemas import Schema, ref, schemas
from preforch_service.settings import ServeSettings

READ_ERRORS = (400, 401, 429, 500, 503)
"""What every route with data may answer: wrong Host, no key, too many requests, our fault, shutting down."""
SEND_ERRORS = (*READ_ERRORS, 408, 413, 415)
"""And those that read a body."""
ENGINE_ERRORS = (403, 404, 501, 502, 504)
"""And those that ask the engine: model not allowed or not there, what the engine lacks, engine broken or
late."""

_ERRORS = {
    400: "The request is wrong; `param` names the field",
    401: "An API key is needed, or this one is not known",
    403: "The key does not allow this",
    404: "No such model",
    408: "The body came too slowly",
    413: "The body is over a limit",
    415: "Content-Type is not application/json, or Content-Encoding another than gzip",
    422: "The bundle is not usable; the old one keeps serving",
    429: "Too many requests; come back after Retry-After seconds",
    500: "A fault of the gateway or of the engine",
    501: "The engine lacks what was asked for",
    502: "The engine gave no proper answer",
    503: "Not now: loading, draining, overloaded, or the engine is down",
    504: "The engine did not answer in time",
}
_SOMETIMES = (HEADER, PRESET_HEADER, APPLIED_HEADER, IGNORED_HEADER)
_PREFERENCE_HEADERS = (SOURCE_HEADER, "X-Preference-Bundle", *_SOMETIMES)
_HEADERS = {
    "X-Request-Id": "the id that the request came with, or a new one",
    HEADER: "the decided weights, as helpful=0.70,harmless=0.30; absent where prompts differ",
    SOURCE_HEADER: "orchestrator, user, preset, blended or fallback; mixed where prompts differ",
    "X-Preference-Bundle": "revision of the orchestrator's bundle",
    PRESET_HEADER: "the preset that had a say in the weights, if one had",
    APPLIED_HEADER: "false, where the policy does not read the weights; advice, where it was not trained to "
    "follow them",
    IGNORED_HEADER: "fields of the request that were dropped, where there were any: store, metadata, ...",
    "WWW-Authenticate": "Bearer",
}
MODEL_PARAMETER = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "as /v1/models lists it, or with weights after an @: NAME@helpful=0.7,harmless=0.3",
}
_WEIGHTS_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "weights as helpful=0.7,harmless=0.3; must agree with those of body and model name",
}
_PRESET_PARAMETER = {
    "name": PRESET_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "a preset of /objectives; must agree with that of body and model name",
}
_REQUEST_ID_PARAMETER = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "1 to 128 of A-Z a-z 0-9 . _ : -; anything else is replaced by a new id",
}


def json_answer(schema: str, *others: str, description: str = "The answer") -> Schema:
    """An answer in JSON, of one of the named components."""
    options = [ref(name) for name in (schema, *others)]
    content = options[0] if len(options) == 1 else {"anyOf": options}
    return {"description": description, "content": {"application/json": {"schema": content}}}


def generation_answer(schema: str) -> Schema:
    """An answer in JSON or, where `stream` is true, as server-sent events."""
    answer = json_answer(schema)
    answer["content"]["text/event-stream"] = {
        "schema": {"type": "string"},
        "example": 'data: {"...": "..."}\n\ndata: [DONE]\n\n',
    }
    answer["description"] = (
        "The answer; with `stream`, events of which the first with content says which weights are used. "
        "A stream that breaks off ends with an event that holds `error`."
    )
    answer["headers"] = {name: ref(name, kind="headers") for name in _PREFERENCE_HEADERS}
    return answer


def _error_answer(status: int, schema: str) -> Schema:
    answer = json_answer(schema, description=_ERRORS[status])
    if status in (429, 503):
        answer["headers"] = {"Retry-After": ref("Retry-After", kind="headers")}
    if status == 401:
        answer["headers"] = {"WWW-Authenticate": ref("WWW-Authenticate", kind="headers")}
    return answer


def described(
    answers: Mapping[int, Schema],
    *,
    errors: Sequence[int] = (),
    body: str | None = None,
    parameters: Sequence[Schema] = (),
    error: str = "Error",
) -> dict[str, Any]:
    """Keyword arguments of a route's decorator. Routes without `errors` are open, the others may want a key.

    `body` is the component of the JSON body, `error` that of every error; a route with a body takes weights
    and a preset in headers, too. `parameters` are the route's own.
    """
    operation: dict[str, Any] = {
        "responses": {str(status): answer for status, answer in answers.items()}
        | {str(status): _error_answer(status, error) for status in sorted(errors)},
        # Either is enough: no key is needed where the operator has set none.
        "security": [{}, {"key": []}] if errors else [],
        "parameters": [*parameters, _REQUEST_ID_PARAMETER],
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(body)}}}
        operation["parameters"][:0] = [_WEIGHTS_PARAMETER, _PRESET_PARAMETER]
    return {"openapi_extra": operation, "response_model": None}


def complete(document: Mapping[str, Any], names: Sequence[str], settings: ServeSettings) -> dict[str, Any]:
    """The document with its components, and with the header that every answer has."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                answer.setdefault("headers", {})["X-Request-Id"] = ref("X-Request-Id", kind="headers")
    headers = {
        name: {"description": text, "required": name not in _SOMETIMES, "schema": {"type": "string"}}
        for name, text in _HEADERS.items()
    }
    headers["Retry-After"] = {
        "description": "seconds",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }
    components = {
        "schemas": schemas(names, settings, unknown_fields=settings.unknown_fields)
        | format_schemas(settings.unknown_fields),
        "headers": headers,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "an API key"}},
    }
    return {**document, "components": components}
