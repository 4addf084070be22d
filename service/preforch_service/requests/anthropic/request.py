"""Reads a Messages request: system prompt, conversation, tools, and what bounds the answer.

In:  the fields that may reach the engine, and a reading.
Out: `MESSAGES` and `COUNT_TOKENS`, whose `read` gives the reading its turns, and fields for the engine.
"""

from collections.abc import Mapping
from typing import Any

from preforch_service.errors import BadRequest
from preforch_service.requests.anthropic import fields
from preforch_service.requests.anthropic.blocks import read_messages, read_system
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.formats import (
    Reading,
    RequestFormat,
    known_keys,
    mapping,
    sequence,
    string,
)
from preforch_service.requests.ignored import Ignored


def read_conversation(body: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """Rebuilt fields of a request that is answered. Raises BadRequest."""
    found = count_conversation(body, reading)
    if found["messages"][-1]["role"] == "assistant":
        # The engine would not continue it either, but begin another turn.
        message = "an answer is not continued (prefill); the conversation must end with a user's message"
        raise BadRequest(message, param="messages", code="field_not_allowed")
    return found


def count_conversation(body: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """Rebuilt fields. Raises BadRequest."""
    found = dict(body)
    if "system" in body:
        found["system"] = read_system(body["system"], reading)
    found["messages"] = read_messages(body.get("messages"), reading)
    _keep_apart(found, reading.guard)
    found |= {
        name: read(body[name], name, reading.ignored) for name, read in _REBUILT.items() if name in body
    }
    return {name: value for name, value in found.items() if value or name not in _REBUILT}


def _keep_apart(found: dict[str, Any], guard: ControlGuard) -> None:
    """No control string may come of system messages that an engine makes one of, as its template wants it."""
    inline = [message for message in found["messages"] if message["role"] == "system"]
    texts = [found.get("system", ""), *(message["content"] for message in inline)]
    apart = guard.apart(texts, ["system", *["messages"] * len(inline)])
    for message, text in zip(inline, apart[1:], strict=True):
        message["content"] = text


def _tools(given: object, param: str, ignored: Ignored) -> list[dict[str, Any]]:
    return [_tool(tool, f"{param}[{i}]", ignored) for i, tool in enumerate(sequence(given, param))]


def _tool(given: object, param: str, ignored: Ignored) -> dict[str, Any]:
    kind = mapping(given, param).get("type")
    if kind is not None and kind not in fields.TOOL_TYPES:
        message = f"type {kind!r} is not served: {fields.TOOLS_REFUSED}"
        raise BadRequest(message, param=f"{param}.type", code="field_not_allowed")
    tool = known_keys(given, param, ignored, known=fields.TOOL, droppable=None)
    string(tool.get("name"), f"{param}.name")
    mapping(tool.get("input_schema"), f"{param}.input_schema")
    return {name: value for name, value in tool.items() if name != "type"}


def _tool_choice(given: object, param: str, ignored: Ignored) -> dict[str, Any]:
    return known_keys(given, param, ignored, known=fields.CHOICE)


def _thinking(given: object, param: str, ignored: Ignored) -> dict[str, Any]:
    """Whether there shall be none: how much there is, or of which kind, is the policy's own."""
    disabled = mapping(given, param).get("type") == "disabled"
    known = frozenset({"type"} if disabled else ())
    return known_keys(given, param, ignored, known=known, droppable=None)


def _output_config(given: object, param: str, ignored: Ignored) -> dict[str, Any]:
    config = known_keys(given, param, ignored, known=fields.OUTPUT)
    if "format" in config:
        inner = f"{param}.format"
        config["format"] = known_keys(config["format"], inner, ignored, known=fields.OUTPUT_FORMAT)
    return config


_REBUILT = {
    "tools": _tools,
    "tool_choice": _tool_choice,
    "thinking": _thinking,
    "output_config": _output_config,
}

MESSAGES = RequestFormat(
    forwarded=fields.FORWARDED,
    refused=fields.REFUSED,
    changes_nothing=fields.CHANGES_NOTHING,
    guarded=fields.TEMPLATE_SEES,
    read=read_conversation,
)
COUNT_TOKENS = RequestFormat(
    forwarded=fields.COUNT_FORWARDED,
    refused=fields.REFUSED,
    changes_nothing=fields.CHANGES_NOTHING,
    guarded=fields.TEMPLATE_SEES,
    read=count_conversation,
)
