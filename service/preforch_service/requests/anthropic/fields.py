"""Which fields of Anthropic's requests reach the engine.

A test classifies every field of vLLM's request models and of Anthropic's client by these tables.

FORWARDED, REFUSED, CHANGES_NOTHING: as in `requests.fields`.
"""

from collections.abc import Mapping

from preforch_service.requests import fields

_ELSEWHERE = "it runs on servers of Anthropic's; served are tools that the client runs"
_MEDIA = "only text is served"
_CHANGES = "the tools of a conversation are those of its field tools"

COUNT_FORWARDED = frozenset(
    {
        *("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"),
        "chat_template_kwargs",
    }
)
FORWARDED = COUNT_FORWARDED | {
    *("max_tokens", "stop_sequences", "stream", "temperature", "top_k", "top_p"),
}
_MESSAGE = "what is said to the policy stands in system and messages"
REFUSED: Mapping[str, str] = {
    **fields.CHAT_REFUSED,
    **fields.elsewhere(FORWARDED),
    **dict.fromkeys(("instructions", "input", "prompt"), _MESSAGE),
    "mcp_servers": _ELSEWHERE,
    "container": _ELSEWHERE,
    "output_format": "its place is output_config.format",
    "thread": "conversations are not stored here; send all messages",
    "compaction": "a conversation stays whole",
    "fallbacks": "one model is served",
    "fallback_credit_token": "one model is served",
}
CHANGES_NOTHING = {**fields.CHANGES_NOTHING, "mcp_servers": [], "fallbacks": []}

TEMPLATE_SEES = ("tools", "tool_choice", "output_config", "chat_template_kwargs")
"""Fields besides `messages` and `system` that vLLM hands to the chat template, or that bound the answer."""

ROLES = ("user", "assistant", "system")
BILLING = "x-anthropic-billing-header"
"""How a system block begins that Claude Code adds: another one in every request, which no model should read
and no prefix cache could keep. vLLM drops it, too."""
BLOCKS: Mapping[str, tuple[str, ...]] = {
    "user": ("text", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
"""Types of content blocks, by the role of their message."""
BLOCK_FIELDS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"type", "text"}),
    # Who wrote it, for that provider; what others have encrypted cannot be read.
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
    "tool_result": frozenset({"type", "tool_use_id", "content"}),
}
"""Fields of blocks that are read, or understood and not needed."""
MESSAGE = frozenset({"role", "content"})
BLOCKS_REFUSED = {
    **dict.fromkeys(("image", "document", "search_result"), _MEDIA),
    **dict.fromkeys(("tool_addition", "tool_removal", "tool_reference"), _CHANGES),
    "tool_result": "it belongs in a user's message",
    **dict.fromkeys(("thinking", "redacted_thinking", "tool_use"), "it belongs in an assistant's message"),
    **dict.fromkeys(
        (
            *("server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "container_upload"),
            *("code_execution_tool_result", "bash_code_execution_tool_result", "mcp_tool_use"),
            *("text_editor_code_execution_tool_result", "tool_search_tool_result", "mcp_tool_result"),
        ),
        _ELSEWHERE,
    ),
}
TEXT = {"text": "text"}
TOOL = frozenset({"type", "name", "description", "input_schema", "strict", "defer_loading"})
TOOL_TYPES = ("custom",)
TOOLS_REFUSED = "it is Anthropic's; served are tools with an input_schema, which the client runs"
CHOICE = frozenset({"type", "name", "disable_parallel_tool_use"})
OUTPUT = frozenset({"effort", "format"})
OUTPUT_FORMAT = frozenset({"type", "schema"})
