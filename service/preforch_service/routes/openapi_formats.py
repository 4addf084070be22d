"""JSON schemas of Responses and Messages, for the OpenAPI document: made of the tables of each format.

Refused fields may be null, or say what happens anyway.
"""

from preforch_service.requests.anthropic.request import COUNT_TOKENS, MESSAGES
from preforch_service.requests.formats import RequestFormat
from preforch_service.requests.ignored import UnknownFields
from preforch_service.requests.responses.request import RESPONSES
from preforch_service.routes.openapi_schemas import Schema, engine_body, ref

_ITEMS: Schema = {"type": "array", "items": {"type": "object"}, "minItems": 1}


def _body(form: RequestFormat, unknown_fields: UnknownFields, **known: Schema) -> Schema:
    (required,) = known
    schema = engine_body(form.forwarded, required=required, known=known, unknown_fields=unknown_fields)
    if unknown_fields == "ignore":
        schema["properties"] |= {
            name: {"enum": [None, *_harmless(form, name)], "description": reason}
            for name, reason in sorted(form.refused.items())
        }
    return schema


def _harmless(form: RequestFormat, name: str) -> list[object]:
    return [form.changes_nothing[name]] if name in form.changes_nothing else []


def _answer(format_name: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "description": f"as {format_name}, with `preference`; further fields are the engine's",
        "properties": {**properties, "preference": ref("Preference")},
        "required": [*properties, "preference"],
    }


def format_schemas(unknown_fields: UnknownFields) -> dict[str, Schema]:
    """All components of both formats."""
    text: Schema = {"type": "string"}
    objects: Schema = {"type": "array", "items": {"type": "object"}}
    said = {"id": text, "model": text}
    return {
        "ResponsesRequest": _body(RESPONSES, unknown_fields, input={"anyOf": [text, _ITEMS]}),
        "ResponsesAnswer": _answer("OpenAI's", **said, status=text, output=objects),
        "MessagesRequest": _body(MESSAGES, unknown_fields, messages=_ITEMS),
        "MessagesAnswer": _answer("Anthropic's", **said, role={"const": "assistant"}, content=objects),
        "CountRequest": _body(COUNT_TOKENS, unknown_fields, messages=_ITEMS),
        "TokenCount": _answer("Anthropic's", input_tokens={"type": "integer", "minimum": 0}),
        "AnthropicError": {
            "type": "object",
            "properties": {
                "type": {"const": "error"},
                "error": {
                    "type": "object",
                    "properties": {"type": text, "message": text},
                    "required": ["type", "message"],
                },
            },
            "required": ["type", "error"],
        },
    }
