"""JSON schemas of what the gateway takes and gives, for the OpenAPI document.

Bodies are the wire models; for the routes of OpenAI, the allow-lists of `fields`: typed where the type is
simple, open where the engine checks the value. A schema never allows less than the gateway does.
"""

from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from preforch_service.recommendation.weighing import UNFAMILIAR, Stage
from preforch_service.requests.fields import (
    CHAT_FORWARDED,
    COMPLETION_FORWARDED,
    OWN_FIELDS,
    PRESET_FIELD,
    ROLES,
    TEXT_PARTS,
    WEIGHTS_FIELD,
)
from preforch_service.requests.ignored import IGNORED_HEADER, UnknownFields
from preforch_service.requests.limits import RequestLimits
from preforch_service.wire import Generated, GenerateRequest, Recommended, Reloaded, WeightsRequest

Schema = dict[str, Any]

_FIELDS_BY_TYPE = {
    "boolean": (
        *(
            "stream",
            "echo",
            "ignore_eos",
            "include_stop_str_in_output",
            "skip_special_tokens",
            "use_beam_search",
        ),
        *("spaces_between_special_tokens", "parallel_tool_calls", "include_reasoning", "return_prompt_text"),
        *("return_token_ids", "return_tokens_as_token_ids"),
    ),
    "integer": (
        *("n", "seed", "max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens", "top_k"),
        "prompt_logprobs",
    ),
    "number": (
        *("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"),
        "length_penalty",
    ),
    "string": ("user", "model", "instructions", PRESET_FIELD),
    "object": (
        *("logit_bias", "stream_options", "chat_template_kwargs", "text", "reasoning", "thinking"),
        "output_config",
    ),
    "array": ("tools", "stop_token_ids", "stop_sequences", "bad_words", "logprob_token_ids", "include"),
}
_TYPES = {field: {"type": [kind, "null"]} for kind, fields in _FIELDS_BY_TYPE.items() for field in fields}
_DESCRIBED = {
    "model": "the served name (GET /v1/models), NAME@PRESET, or NAME@helpful=0.7,harmless=0.3",
    PRESET_FIELD: "a preset of /objectives; it fills what preference_weights leave open",
    "chat_template_kwargs": "only keys that the operator lists",
}


def ref(name: str, *, kind: str = "schemas") -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def given_weights(names: Sequence[str]) -> Schema:
    """Weights as users give them: by name, all or some, or all in the order of /objectives."""
    number = {"type": "number", "minimum": 0}
    by_name = {
        "type": "object",
        "properties": dict.fromkeys(names, number),
        "additionalProperties": False,
        "minProperties": 1,
        "description": (
            "all objectives: normalised and used; some: pinned, and the orchestrator shares out the rest"
        ),
        "examples": [{names[0]: 0.7}],
    }
    in_order = {"type": "array", "items": number, "minItems": len(names), "maxItems": len(names)}
    return {"anyOf": [by_name, in_order, {"type": "null"}]}


def clamped(names: Sequence[str]) -> Schema:
    """The bounds that changed the weights, by objective."""
    share = {"type": "number", "minimum": 0, "maximum": 1}
    bound = {
        "type": "object",
        "properties": {"low": share, "high": share},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {
        "type": "object",
        "description": "by objective, the bound (the operator's or the API key's) that held its weight; "
        "empty where bounds changed nothing",
        "properties": dict.fromkeys(names, bound),
        "additionalProperties": False,
    }


_ADVICE = {
    "const": True,
    "description": "the policy was not trained to follow the weights that it reads",
}


def preference(names: Sequence[str]) -> Schema:
    """The object that says which weights were used."""
    share = {"type": "number", "minimum": 0, "maximum": 1}
    weights = {
        "type": "object",
        "properties": dict.fromkeys(names, share),
        "required": list(names),
    }
    return {
        "type": "object",
        "description": "the decided weights, where they came from, and whether the policy reads them",
        "properties": {
            "weights": weights,
            "source": {"enum": ["orchestrator", "user", "preset", "blended", "fallback"]},
            "recommended": nullable(weights),
            "clamped": clamped(names),
            "bundle": {"type": "string", "description": "revision of the orchestrator's bundle"},
            "applied": {"type": "boolean", "description": "false: the policy does not read the weights"},
            "advice": _ADVICE,
            "reason": {
                "enum": ["late", "overloaded", "failed", UNFAMILIAR],
                "description": "why these are fallback weights, or blended towards them",
            },
            "preset": {"type": "string", "description": "the preset that had a say in the weights"},
            "member": {
                "type": "object",
                "description": "of a set of policies, the one that answered",
                "properties": {
                    "name": {"type": "string"},
                    "weights": weights,
                    "distance": {"description": "total variation to the decided weights", **share},
                },
                "required": ["name", "weights", "distance"],
            },
        },
        "required": ["weights", "source", "recommended", "clamped", "bundle", "applied"],
    }


def _messages() -> Schema:
    part = {
        "type": "object",
        "properties": {"type": {"enum": list(TEXT_PARTS)}},
        "required": ["type"],
        "examples": [{"type": "text", "text": "hello"}],
    }
    message = {
        "type": "object",
        "properties": {
            "role": {"enum": [*ROLES, "function"]},
            "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": part}, {"type": "null"}]},
            **{name: {} for name in ("name", "tool_calls", "tool_call_id", "tools", "function_call")},
        },
        "required": ["role"],
    }
    return {
        "type": "array",
        "minItems": 1,
        "items": message,
        "description": "a conversation in OpenAI's format, text only, with at least one user turn",
        "examples": [[{"role": "user", "content": "How do I fix a tyre?"}]],
    }


def engine_body(
    fields: Iterable[str], *, required: str, known: Schema, unknown_fields: UnknownFields
) -> Schema:
    """A body of which only the listed fields may reach the engine; others are dropped, if not refused."""
    types = _TYPES | {WEIGHTS_FIELD: ref("GivenWeights")} | known
    described = {name: {"description": text} for name, text in _DESCRIBED.items()}
    properties = {
        name: types.get(name, {}) | described.get(name, {}) for name in sorted({*fields, *OWN_FIELDS})
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [required],
        "additionalProperties": unknown_fields == "ignore",
        "description": (
            "what would change prompt or answer and is not served is a 400; other fields without a name here "
            f"are dropped and named in {IGNORED_HEADER}, or a 400 where the operator wants that"
        ),
    }


def _engine_answer(item: str, preference: Schema) -> Schema:
    choice = {
        "type": "object",
        "properties": {"index": {"type": "integer"}, item: {}},
        "required": ["index", item],
    }
    return {
        "type": "object",
        "description": "as OpenAI's, with `preference`; further fields are the engine's",
        "properties": {
            "id": {"type": "string"},
            "model": {"type": "string"},
            "choices": {"type": "array", "items": choice},
            "usage": nullable({"type": "object"}),
            "preference": preference,
        },
        "required": ["id", "model", "choices", "preference"],
    }


def _wire(model: type[BaseModel], **properties: Schema) -> Schema:
    """The schema of a model, some properties replaced."""
    schema = model.model_json_schema()
    assert "$defs" not in schema, "nested models need components of their own"
    schema["properties"] |= properties
    return schema


def _exactly_one(schema: Schema, kinds: dict[str, str]) -> Schema:
    """Null counts as not given."""
    choices = [{"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()]
    return schema | {"oneOf": choices}


def _error() -> Schema:
    text = {"type": ["string", "null"]}
    error = {
        "type": "object",
        "properties": {
            "message": {"type": "string", "description": "what is wrong, and what is allowed"},
            "type": {"type": "string"},
            "param": text | {"description": "the field or header that is wrong"},
            "code": {"type": ["string", "integer", "null"], "description": "a word to branch on"},
        },
        "required": ["message", "type", "param", "code"],
    }
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}


def _steps() -> Schema:
    step = {
        "type": "object",
        "properties": {
            "step": {"enum": list(get_args(Stage))},
            "weights": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        "required": ["step", "weights"],
    }
    description = "with `explain`: what each step said or left; the last are the announced weights"
    return {"type": "array", "items": step, "description": description}


def _objectives() -> Schema:
    objective = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "description": {"type": "string"},
            "bounds": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        },
        "required": ["name", "description", "bounds"],
    }
    weights = {"type": "object", "additionalProperties": {"type": "number"}}
    return {
        "type": "object",
        "properties": {
            "objectives": {"type": "array", "items": objective},
            "fallback": weights,
            "presets": {
                "type": "object",
                "description": "weights by the name of the preset, of all objectives or some",
                "additionalProperties": weights,
            },
            "bundle": {"type": "string"},
        },
        "required": ["objectives", "fallback", "presets", "bundle"],
    }


def _model() -> Schema:
    preference = {
        "type": "object",
        "description": "how decided weights reach the policy, whether it reads them and was trained to "
        "follow them, and of NAME@PRESET the preset",
        "properties": {
            "conditioning": {"type": "string"},
            "applied": {"type": "boolean"},
            "advice": _ADVICE,
            "preset": {"type": "string"},
        },
        "required": ["conditioning", "applied"],
    }
    return {
        "type": "object",
        "properties": {"id": {"type": "string"}, "preference": preference},
        "required": ["id", "preference"],
    }


def _prompt(limits: RequestLimits) -> Schema:
    text = {"type": "string", "minLength": 1}
    several = {"type": "array", "items": text, "minItems": 1, "maxItems": limits.max_prompts}
    return {"anyOf": [text, several], "description": "one string, or several: each has its own weights"}


def _preferences() -> Schema:
    each = {"type": "array", "items": ref("Preference"), "description": "of each prompt, in order"}
    several = {"type": "object", "properties": {"prompts": each}, "required": ["prompts"]}
    return {"anyOf": [ref("Preference"), several]}


_FUNCTIONS = {
    "functions": nullable({"type": "array", "description": "the old form of tools"}),
    "function_call": {"description": "the old form of tool_choice"},
}


def _openai(limits: RequestLimits, unknown_fields: UnknownFields) -> dict[str, Schema]:
    """Bodies and answers of OpenAI's routes."""
    chat = {"messages": ref("Messages"), **_FUNCTIONS}
    completion = {"prompt": _prompt(limits)}
    return {
        "ChatRequest": engine_body(
            {*CHAT_FORWARDED, *_FUNCTIONS}, required="messages", known=chat, unknown_fields=unknown_fields
        ),
        "ChatAnswer": _engine_answer("message", ref("Preference")),
        "CompletionRequest": engine_body(
            COMPLETION_FORWARDED, required="prompt", known=completion, unknown_fields=unknown_fields
        ),
        "CompletionAnswer": _engine_answer("text", _preferences()),
    }


def schemas(
    names: Sequence[str], limits: RequestLimits, *, unknown_fields: UnknownFields = "ignore"
) -> dict[str, Schema]:
    """All components, for the objectives of a bundle and the limits of a request."""
    prompted = {"messages": nullable(ref("Messages")), "weights": ref("GivenWeights")}
    one = {"anyOf": [{"type": "string"}, ref("Messages")]}
    inputs = nullable({"type": "array", "items": one, "minItems": 1, "maxItems": limits.max_inputs})
    weights_request = _wire(WeightsRequest, **prompted, inputs=inputs)
    results = {
        "type": "object",
        "properties": {
            "results": {"type": "array", "items": ref("Recommended")},
            "bundle": {"type": "string"},
        },
        "required": ["results", "bundle"],
    }
    return {
        "GivenWeights": given_weights(names),
        "Preference": preference(names),
        "Messages": _messages(),
        "WeightsRequest": _exactly_one(
            weights_request, {"prompt": "string", "messages": "array", "inputs": "array"}
        ),
        "Recommended": _wire(Recommended, clamped=clamped(names), steps=_steps()),
        "ManyRecommended": results,
        "GenerateRequest": _exactly_one(
            _wire(GenerateRequest, **prompted), {"prompt": "string", "messages": "array"}
        ),
        "Generated": _wire(Generated),
        "Reloaded": _wire(Reloaded),
        **_openai(limits, unknown_fields),
        "Model": _model(),
        "Models": {
            "type": "object",
            "properties": {
                "object": {"type": "string"},
                "data": {"type": "array", "items": ref("Model")},
            },
            "required": ["data"],
        },
        "Objectives": _objectives(),
        "Alive": {"type": "object", "properties": {"status": {"const": "alive"}}, "required": ["status"]},
        "Readiness": {
            "type": "object",
            "properties": {
                "status": {"enum": ["ready", "not ready"]},
                "bundle": {"type": "string"},
                "reason": {"type": "string", "description": "why not"},
            },
            "required": ["status"],
        },
        "Error": _error(),
    }
