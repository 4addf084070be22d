"""Requests as agents send them: several turns, tools, results, reasoning."""

from typing import Any

Body = dict[str, Any]

SCHEMA: Body = {
    "type": "object",
    "properties": {"command": {"type": "array", "items": {"type": "string"}}},
    "required": ["command"],
    "additionalProperties": False,
}

CODEX: Body = {
    "model": "tiny",
    "instructions": "You are a coding agent. Answer in short sentences.",
    "input": [
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "<permissions>read only</permissions>"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [
                {
                    "type": "input_text",
                    "text": "<environment_context>\n  <cwd>/w</cwd>\n</environment_context>",
                }
            ],
        },
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "why does it fail?"}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Look at the log."}],
            "content": [{"type": "reasoning_text", "text": "Look at the log first."}],
            "encrypted_content": None,
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "status": "completed",
            "call_id": "call_1",
            "name": "shell",
            "arguments": '{"command": ["cat", "log"]}',
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "disk full"},
        {
            "type": "custom_tool_call",
            "call_id": "call_2",
            "name": "apply_patch",
            "input": "*** Begin Patch\n*** End Patch",
            "status": "completed",
        },
        {
            "type": "custom_tool_call_output",
            "call_id": "call_2",
            "output": [{"type": "input_text", "text": "done"}],
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "phase": "final_answer",
            "content": [
                {"type": "output_text", "text": "The disk is full.", "annotations": [], "logprobs": []}
            ],
        },
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "free some space"}]},
    ],
    "tools": [
        {
            "type": "function",
            "name": "shell",
            "description": "Runs a command.",
            "strict": False,
            "parameters": SCHEMA,
        },
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits files.",
            "format": {"type": "text"},
        },
        {
            "type": "namespace",
            "name": "mcp__files",
            "description": "Files.",
            "tools": [{"type": "function", "name": "read", "parameters": SCHEMA, "strict": False}],
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "019a0000-0000-7000-8000-000000000000",
    "text": {"verbosity": "low"},
    "client_metadata": None,
}
"""As Codex sends them."""

OPENCODE: Body = {
    "model": "tiny",
    "input": [
        {"role": "developer", "content": "You are opencode."},
        {"role": "user", "content": [{"type": "input_text", "text": "list the files"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}], "id": "msg_1"},
        {"type": "function_call", "call_id": "call_1", "name": "list", "arguments": '{"path":"."}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "README.md"},
        {"role": "user", "content": [{"type": "input_text", "text": "and what is in it?"}]},
    ],
    "tools": [{"type": "function", "name": "list", "parameters": SCHEMA}],
    "tool_choice": "auto",
    "store": False,
    "prompt_cache_key": "ses_1",
    "max_output_tokens": 32,
    "include": ["reasoning.encrypted_content"],
    "reasoning": {"effort": "low", "summary": "auto"},
}
"""As opencode sends them to a provider that speaks Responses, by the Vercel AI SDK."""

_CACHED = {"type": "ephemeral"}

OPENCODE_CHAT: Body = {
    "model": "tiny",
    "messages": [
        {
            "role": "system",
            "content": [{"type": "text", "text": "You are a coding agent.", "cache_control": _CACHED}],
        },
        {"role": "user", "content": [{"type": "text", "text": "list the files"}]},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "The tool can tell.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "list", "arguments": '{"command":["ls"]}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "README.md", "cache_control": _CACHED},
        {"role": "assistant", "content": "There is a README."},
        {"role": "user", "content": [{"type": "text", "text": "what is in it?", "cache_control": _CACHED}]},
    ],
    "tools": [
        {
            "type": "function",
            "function": {"name": "list", "description": "Lists files.", "parameters": SCHEMA},
        }
    ],
    "tool_choice": "auto",
    "max_tokens": 32,
    "reasoning_effort": "medium",
    "prompt_cache_key": "ses_1",
}
"""As opencode sends them to a provider that speaks chats."""

CLAUDE_CODE: Body = {
    "model": "tiny",
    "max_tokens": 32,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;"},
        {"type": "text", "text": "You are Claude Code.", "cache_control": _CACHED},
        {"type": "text", "text": "\nBe short.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>\nToday is Tuesday.\n</system-reminder>"},
                {"type": "text", "text": "why does it fail?", "cache_control": _CACHED},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Look at the log first.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "b3BhcXVl"},
                {"type": "text", "text": "I read the log."},
                {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": ["cat", "log"]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "text", "text": "disk full"}, {"type": "text", "text": "(exit 1)"}],
                    "is_error": True,
                    "cache_control": _CACHED,
                },
                {"type": "text", "text": "<system-reminder>Mind the plan.</system-reminder>"},
            ],
        },
        {"role": "assistant", "content": "The disk is full."},
        {"role": "system", "content": [{"type": "text", "text": "The user is in a hurry."}]},
        {"role": "user", "content": [{"type": "text", "text": "free some space", "cache_control": _CACHED}]},
    ],
    "tools": [
        {
            "name": "Bash",
            "description": "Runs a command.",
            "input_schema": SCHEMA,
            "cache_control": _CACHED,
            "eager_input_streaming": True,
        },
        {"type": "custom", "name": "Read", "input_schema": {"type": "object", "properties": {}}},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "metadata": {"user_id": "user_1_account__session_1"},
    "thinking": {"type": "enabled", "budget_tokens": 31999},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "medium"},
    "temperature": 1,
}
"""As Claude Code sends them."""
