"""Which fields of a Responses request reach the engine.

A test classifies every field of vLLM's request model and of OpenAI's client by these tables.

FORWARDED, REFUSED, CHANGES_NOTHING: as in `requests.fields`.
"""

from collections.abc import Mapping

from preforch_service.requests import fields

_STORED = "responses are not stored here; send the whole conversation as input"
_ELSEWHERE = "it runs on servers of OpenAI's; served are tools that the client runs"
_MEDIA = "only text is served"
_OWN = "its form is of OpenAI's models alone; served are functions and custom tools"

FORWARDED = frozenset(
    {
        *("model", "input", "instructions", "stream", "max_output_tokens", "include", "user"),
        *("tools", "tool_choice", "parallel_tool_calls", "reasoning", "include_reasoning", "text"),
        *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids", "ignore_eos"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "top_logprobs"),
        *("skip_special_tokens", "include_stop_str_in_output", "structured_outputs"),
        "chat_template_kwargs",
    }
)
REFUSED: Mapping[str, str] = {
    **fields.CHAT_REFUSED,
    **fields.elsewhere(FORWARDED),
    "system": "what is said to the policy stands in instructions and input",
    "previous_response_id": _STORED,
    "conversation": _STORED,
    "background": _STORED,
    "previous_input_messages": "it bypasses the prompt that carries the weights",
    "prompt": "prompt templates lie with OpenAI; send instructions and input",
    "truncation": "it could cut the weights off the prompt",
    "enable_response_messages": "it belongs to the operator",
    "moderation": _ELSEWHERE,
    "image": _MEDIA,
    "access_programs": _ELSEWHERE,
}
CHANGES_NOTHING = {**fields.CHANGES_NOTHING, "background": False, "truncation": "disabled"}

INCLUDED = frozenset({"message.output_text.logprobs"})
"""What `include` may add to an answer; other values name parts of what is never in one, and are dropped."""

TEMPLATE_SEES = ("instructions", "tools", "tool_choice", "reasoning", "chat_template_kwargs")
"""Fields besides `input` that vLLM hands to the chat template."""
CONSTRAINTS = ("text", "structured_outputs")
"""Fields whose text an answer may have to repeat."""

ROLES = ("system", "developer", "user", "assistant")
PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""Types of content parts, and where each holds its text."""
PARTS_REFUSED = dict.fromkeys(("input_image", "input_file", "input_audio", "input_video"), _MEDIA)
# Of answers that are sent back, and of no use in a conversation that is sent whole.
_ECHOED = frozenset({"type", "id", "status"})
_CALL = _ECHOED | {"call_id", "name", "namespace"}
_OUTPUT = _ECHOED | {"call_id", "output"}
ITEMS: Mapping[str, frozenset[str]] = {
    "message": _ECHOED | {"role", "content"},
    "reasoning": _ECHOED | {"content", "summary"},
    "function_call": _CALL | {"arguments"},
    "function_call_output": _OUTPUT,
    "custom_tool_call": _CALL | {"input"},
    "custom_tool_call_output": _OUTPUT,
}
"""Types of items that are served, and the fields of each that are read, or understood and not needed."""
ITEMS_REFUSED = {
    "item_reference": _STORED,
    "compaction": "it can be read by OpenAI alone",
    **dict.fromkeys(
        (
            *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
            *("computer_call", "computer_call_output", "mcp_call", "mcp_list_tools"),
            *("mcp_approval_request", "mcp_approval_response", "tool_search_call", "tool_search_output"),
            *("program", "program_output"),
        ),
        _ELSEWHERE,
    ),
    **dict.fromkeys(
        (
            *("local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output"),
            *("apply_patch_call", "apply_patch_call_output"),
        ),
        _OWN,
    ),
    "compaction_trigger": "a conversation stays whole",
    "additional_tools": "the tools of a conversation are those of its field tools",
    "configuration_update": "settings are those of the request's fields",
}
TOOLS: Mapping[str, frozenset[str]] = {
    "function": frozenset(
        {"type", "name", "description", "parameters", "strict", "defer_loading", "output_schema"}
    ),
    "custom": frozenset({"type", "name", "description", "format", "defer_loading"}),
    "namespace": frozenset({"type", "name", "description", "tools"}),
}
"""Types of tools that are served, and the fields of each."""
TOOLS_REFUSED = {
    **dict.fromkeys(
        (
            *("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
            *("file_search", "code_interpreter", "image_generation", "mcp", "computer"),
            *("computer_use_preview", "tool_search", "programmatic_tool_calling"),
        ),
        _ELSEWHERE,
    ),
    **dict.fromkeys(("local_shell", "shell", "apply_patch"), _OWN),
}
CHOICES: Mapping[str, frozenset[str]] = {
    "function": frozenset({"type", "name"}),
    "custom": frozenset({"type", "name"}),
}
"""Types of objects that `tool_choice` may be."""
FORMATS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"type"}),
    "json_object": frozenset({"type"}),
    "json_schema": frozenset({"type", "name", "description", "schema", "strict"}),
}
"""Types of `text.format`, and the fields of each."""
