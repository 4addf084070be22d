"""Which fields of a request reach the engine.

A test classifies every field of vLLM's request models by these tables.

FORWARDED fields pass; REFUSED fields are a 400 that says why; OURS are set by the gateway and refused from
users. A field in none of them is refused too.
"""

from collections.abc import Mapping, Sequence

from preforch_service.errors import BadRequest

WEIGHTS_FIELD = "preference_weights"
MAX_BIASES = 300
"""Entries of `logit_bias`, as with OpenAI. vLLM's core fails on more than 1024."""

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
_MEDIA = "only text is served"
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
    "mm_payload": _MEDIA,
    "return_mm_kwargs": _MEDIA,
}
CHAT_REFUSED = _REFUSED | {
    "chat_template": _PROMPT,
    "add_generation_prompt": _PROMPT,
    "continue_final_message": _CUTS,
    "media_io_kwargs": _MEDIA,
    "mm_processor_kwargs": _MEDIA,
}
COMPLETION_REFUSED = _REFUSED | {"prompt_embeds": _PROMPT, "suffix": "the context must end the prompt"}

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
    "audio": _MEDIA,
    "function_call": "tool_calls replaced it",
    "task": "no template of ours knows it",
}
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of content parts, and where each holds its text."""


def check_fields(
    body: Mapping[str, object], *, forwarded: frozenset[str], refused: Mapping[str, str]
) -> None:
    """Raise BadRequest naming the first field that may not reach the engine."""
    for name in body:
        if name in forwarded or name == WEIGHTS_FIELD:
            continue
        reason = refused.get(name, "unknown field")
        raise BadRequest(f"field {name!r} is not allowed: {reason}", param=name, code="field_not_allowed")
    for path, allowed in NESTED.items():
        first, *others = path.split(".")
        if first in body:
            _check_nested(body[first], others, allowed, first)
    _check_bias(body.get("logit_bias"))


def _check_bias(given: object) -> None:
    """A bias may keep tokens out of the answer, but not force them into it.

    Tokens have numbers here, not text.
    """
    if given is None:
        return
    if not isinstance(given, Mapping) or len(given) > MAX_BIASES:
        raise BadRequest(
            f"logit_bias must be an object with at most {MAX_BIASES} entries", param="logit_bias"
        )
    for token, bias in given.items():
        if not isinstance(bias, int | float) or bias > 0:
            forces = _FORCES.removeprefix("it ")
            message = f"a bias must be a number of at most 0, got {bias!r}: a positive one {forces}"
            raise BadRequest(message, param=f"logit_bias.{token[:64]}")


def _check_nested(value: object, path: Sequence[str], allowed: frozenset[str], param: str) -> None:
    """Go down the path, through lists, to the objects whose fields are limited."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            _check_nested(item, path, allowed, f"{param}[{i}]")
    elif isinstance(value, Mapping) and path:
        _check_nested(value.get(path[0]), path[1:], allowed, f"{param}.{path[0]}")
    elif isinstance(value, Mapping):
        wrong = next((name for name in value if name not in allowed), None)
        if wrong is not None:
            message = f"field {wrong!r} of {param} is not allowed; allowed are {sorted(allowed)}"
            raise BadRequest(message, param=f"{param}.{wrong}", code="field_not_allowed")


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
