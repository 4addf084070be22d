"""Which fields of a request reach the engine.

A test classifies every field of vLLM's and of OpenAI's request models by these tables.

FORWARDED fields pass; REFUSED fields, which vLLM knows, and NOT_SERVED ones, which it does not, would change
prompt or answer and are a 400 that says why; the gateway's own are among the former. All others are dropped
and named to the client (`ignored`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from preforch_service.errors import BadRequest
from preforch_service.requests.ignored import Ignored

WEIGHTS_FIELD = "preference_weights"
PRESET_FIELD = "preference_preset"
OWN_FIELDS = frozenset({WEIGHTS_FIELD, PRESET_FIELD})
"""What the gateway reads of any body and the engine never sees."""

_SAMPLING = frozenset(
    {
        "model",
        "stream",
        "stream_options",
        "n",
        "seed",
        "stop",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "user",
        "use_beam_search",
        "length_penalty",
        "top_k",
        "min_p",
        "repetition_penalty",
        "stop_token_ids",
        "ignore_eos",
        "include_stop_str_in_output",
        "min_tokens",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "bad_words",
        "prompt_logprobs",
        "logprob_token_ids",
        "response_format",
        "structured_outputs",
        "thinking_token_budget",
        "return_tokens_as_token_ids",
        "return_token_ids",
        "repetition_detection",
        "stream_interval",
        "echo",
    }
)

CHAT_FORWARDED = _SAMPLING | frozenset(
    {
        "messages",
        "max_completion_tokens",
        "top_logprobs",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "reasoning_effort",
        "include_reasoning",
        "documents",
        "return_prompt_text",
        "chat_template_kwargs",
    }
)
COMPLETION_FORWARDED = _SAMPLING | {"prompt"}

_OURS = "the gateway sets it"
_CUTS = "it could cut the weights off the prompt"
_PROMPT = "it replaces or bypasses the prompt that carries the weights"
MEDIA = "only text is served, no images, audio, video or files"
_SEARCH = "web search is not served"
_SERVER = "it belongs to the operator"
_FORCES = "it could force control tokens into the answer"

_REFUSED = {
    "request_id": _OURS,
    "priority": _OURS,
    "session_id": _OURS,
    "cache_salt": _OURS,
    "truncate_prompt_tokens": _CUTS,
    "truncation_side": _CUTS,
    "add_special_tokens": _PROMPT,
    "kv_transfer_params": _PROMPT,
    "ec_transfer_params": _PROMPT,
    "allowed_token_ids": _FORCES,
    "vllm_xargs": _SERVER,
    "watermarking": _SERVER,
    "routed_experts_prompt_start": _SERVER,
    "return_token_offsets": _SERVER,
    "mm_payload": MEDIA,
    "return_mm_kwargs": MEDIA,
}
CHAT_REFUSED = _REFUSED | {
    "chat_template": _PROMPT,
    "add_generation_prompt": _PROMPT,
    "continue_final_message": _CUTS,
    "media_io_kwargs": MEDIA,
    "mm_processor_kwargs": MEDIA,
}
COMPLETION_REFUSED = _REFUSED | {"prompt_embeds": _PROMPT, "suffix": "the context must end the prompt"}

_CONSTRAINED = "structured_outputs and response_format constrain an answer"
_MESSAGE = "what is said to the policy stands in messages"
_NOT_SERVED = {
    **dict.fromkeys(("audio", "modalities"), MEDIA),
    **dict.fromkeys(("web_search_options", "web_search", "search_parameters"), _SEARCH),
    "moderation": "answers are not moderated here",
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), _CONSTRAINED),
    **dict.fromkeys(("grammar", "regex", "ebnf", "json_schema", "structural_tag"), _CONSTRAINED),
    **dict.fromkeys(("prompt_token_ids", "input_ids", "input_embeds"), _PROMPT),
    "extra_body": "it is an argument of a client, whose fields belong in the body itself",
}


def elsewhere(forwarded: frozenset[str]) -> dict[str, str]:
    """Why a route that forwards these fields does not serve what belongs to others."""
    # Without these the answer is the same.
    chat = (CHAT_FORWARDED | {"functions", "function_call"}) - {"user", "stream_options"}
    return _NOT_SERVED | dict.fromkeys(sorted(chat - forwarded), "it belongs to /v1/chat/completions")


CHAT_NOT_SERVED = _NOT_SERVED | {
    **dict.fromkeys(("system", "instructions", "input"), _MESSAGE),
    "prompt": "it belongs to /v1/completions",
}
COMPLETION_NOT_SERVED = elsewhere(COMPLETION_FORWARDED) | {"best_of": "n answers are given out as they come"}
CHANGES_NOTHING: Mapping[str, object] = {"modalities": ["text"], "best_of": 1}
"""Fields that are not served, with the one value that asks for what is done anyway."""

NESTED: Mapping[str, frozenset[str]] = {
    "stream_options": frozenset({"include_usage", "continuous_usage_stats"}),
    "repetition_detection": frozenset({"max_pattern_size", "min_pattern_size", "min_count"}),
    "response_format": frozenset({"type", "json_schema"}),
    "response_format.json_schema": frozenset({"name", "description", "schema", "strict"}),
    "structured_outputs": frozenset(
        {"json", "choice", "json_object", "disable_any_whitespace", "disable_additional_properties"}
    ),
    "tools": frozenset({"type", "function", "defer_loading"}),
    "tools.function": frozenset({"name", "description", "parameters", "strict", "defer_loading"}),
    "tool_choice": frozenset({"type", "function"}),
    "tool_choice.function": frozenset({"name"}),
}
"""Fields of the objects inside a request; lists of objects are looked through."""
NESTED_REFUSED = {
    "response_format": frozenset({"format", "structures", "triggers"}),
    "response_format.structures": frozenset({"begin", "schema", "end"}),
    "structured_outputs": frozenset(
        {"regex", "grammar", "structural_tag", "whitespace_pattern", "_backend", "_backend_was_auto"}
    ),
}
"""Structural tags, grammars and regular expressions can name a token by its id, or spell a control string in
ways that no check sees, and so force control tokens into the answer. The others are vLLM's own, and no user
has to set them."""
DROPS_UNKNOWN = frozenset({"stream_options", "tools", "tools.function"})
"""Of the objects with limited fields, those in which an unknown one is no constraint of the answer."""

TEMPLATE_SEES = (
    "tools",
    "tool_choice",
    "documents",
    "response_format",
    "reasoning_effort",
    "chat_template_kwargs",
)
"""Fields besides `messages` that vLLM hands to the chat template."""
CONSTRAINTS = ("response_format", "structured_outputs")
"""Fields whose text an answer may have to repeat."""

ROLES = ("system", "developer", "user", "assistant", "tool")
MESSAGE_FIELDS = frozenset(
    {
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "reasoning",
        "reasoning_content",
        "refusal",
        "tools",
    }
)
MESSAGE_REFUSED = {
    **dict.fromkeys(("audio", "images"), MEDIA),
    "task": "no template of ours knows it",
    **dict.fromkeys(("prefix", "partial"), "an answer cannot be begun for the policy"),
}
TOOL_CALL_FIELDS = frozenset({"id", "type", "function"})
CALLED_FIELDS = frozenset({"name", "arguments"})
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of content parts, and where each holds its text."""


MEDIA_PARTS = ("image", "audio", "video", "file")
"""What is in the type of a content part that is no text: `image_url`, `input_audio`."""
# In the name of a field that asks for weights by another name: in camel case, or misspelt.
_WEIGHTS_NAME = re.compile(r"preference|weight", re.IGNORECASE)


def check_fields(
    body: Mapping[str, Any], *, forwarded: frozenset[str], refused: Mapping[str, str], ignored: Ignored
) -> dict[str, Any]:
    """The fields of a chat's or completion's body that the gateway and the engine read, as `keep_fields`.

    Those of the objects inside as well.
    """
    kept = keep_fields(body, forwarded=forwarded, refused=refused, ignored=ignored)
    _check_tool_types(kept.get("tools"))
    for path, allowed in NESTED.items():
        first, *others = path.split(".")
        if first in kept:
            kept[first] = _keep_nested(kept[first], others, allowed, first, path, ignored)
    return kept


def keep_fields(
    body: Mapping[str, Any],
    *,
    forwarded: frozenset[str],
    refused: Mapping[str, str],
    ignored: Ignored,
    changes_nothing: Mapping[str, object] = CHANGES_NOTHING,
) -> dict[str, Any]:
    """The fields of a body that the gateway and the engine read; the others are noted in `ignored`.

    Raises BadRequest naming the first field that may not be left out and is not served.
    """
    kept = {}
    for name, value in body.items():
        if name in forwarded or name in OWN_FIELDS:
            kept[name] = value
            continue
        if name in refused and value is not None and value != changes_nothing.get(name):
            message = f"field {name!r} is not allowed: {refused[name]}"
            raise BadRequest(message, param=name, code="field_not_allowed")
        if value is not None and _WEIGHTS_NAME.search(name):
            # Dropping it would answer under other weights than the user meant to ask for.
            message = f"field {name[:64]!r} is not allowed: weights go into {WEIGHTS_FIELD!r}"
            raise BadRequest(message, param=name[:64], code="field_not_allowed")
        ignored.drop(name, param=name)
    return kept


def _check_tool_types(tools: object) -> None:
    for i, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if isinstance(kind, str) and kind != "function":
            reason = _SEARCH if "search" in kind else "served is 'function'"
            raise BadRequest(f"tool type {kind!r} is not served: {reason}", param=f"tools[{i}].type")


def _keep_nested(
    value: object, path: Sequence[str], allowed: frozenset[str], param: str, place: str, ignored: Ignored
) -> object:
    """The value without what is dropped of the objects at the path, through lists."""
    if isinstance(value, list):
        return [
            _keep_nested(item, path, allowed, f"{param}[{i}]", place, ignored) for i, item in enumerate(value)
        ]
    if not isinstance(value, Mapping):
        return value
    if path:
        inner = {path[0]: value[path[0]]} if path[0] in value else {}
        return {
            **value,
            **{
                name: _keep_nested(item, path[1:], allowed, f"{param}.{name}", place, ignored)
                for name, item in inner.items()
            },
        }
    droppable = None if place in DROPS_UNKNOWN else frozenset({"cache_control"})
    return keep_allowed(value, allowed, param, place, ignored, droppable=droppable)


def keep_allowed(
    value: Mapping[str, Any],
    allowed: frozenset[str],
    param: str,
    place: str,
    ignored: Ignored,
    *,
    droppable: frozenset[str] | None,
) -> dict[str, Any]:
    """The allowed fields of one object, where the others may be dropped; None: all may.

    Raises BadRequest naming the first that may not.
    """
    wrong = next(
        (n for n in value if n not in allowed and droppable is not None and n not in droppable), None
    )
    if wrong is not None:
        message = f"field {wrong!r} of {param} is not allowed; allowed are {sorted(allowed)}"
        raise BadRequest(message, param=f"{param}.{wrong}", code="field_not_allowed")
    return keep_known(value, allowed, param, place, ignored)


def keep_known(
    value: Mapping[str, Any], known: frozenset[str], param: str, place: str, ignored: Ignored
) -> dict[str, Any]:
    """The fields of one object that are known."""
    for name in value:
        if name not in known:
            ignored.drop(name, param=f"{param}.{name}", place=place)
    return {name: item for name, item in value.items() if name in known}


def check_template_kwargs(given: object, *, allowed: tuple[str, ...]) -> dict[str, object]:
    """`chat_template_kwargs` of a user: only keys that the operator lists."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BadRequest("chat_template_kwargs must be an object", param="chat_template_kwargs")
    for key in given:
        if key not in allowed:
            message = f"chat_template_kwargs key {key!r} is not allowed; allowed are {list(allowed)}"
            raise BadRequest(message, param=f"chat_template_kwargs.{key}", code="field_not_allowed")
    return dict(given)
