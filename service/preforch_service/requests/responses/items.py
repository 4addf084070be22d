"""Reads the input of a Responses request.

In:  `input` as a user sent it: a string, or items.
Out: its turns for the orchestrator, and items for the engine: built anew of known keys, content as one
     string, no control strings, no status (the engine would continue an answer whose status is
     `incomplete`, and cut the prompt for it).
"""

from collections.abc import Callable, Mapping
from typing import Any

from preforch_service.errors import BadRequest
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.formats import (
    Reading,
    kind_of,
    mapping,
    note_unread,
    sequence,
    string,
    texts_of,
)
from preforch_service.requests.responses.fields import ITEMS, ITEMS_REFUSED, PARTS, PARTS_REFUSED, ROLES

Item = dict[str, Any]
_UNFINISHED = ("in_progress", "incomplete")
_REASONING = {"reasoning_text": "text", "text": "text"}
_SUMMARY = {"summary_text": "text"}


def read_input(given: object, reading: Reading) -> str | list[Item]:
    """The engine's input; its turns are added to those of the reading. Raises BadRequest."""
    if isinstance(given, str):
        reading.turn("user", given)
        return reading.guard.text(given, "input")
    if not isinstance(given, list) or not given:
        raise BadRequest("input must be a string, or a list with at least one item", param="input")
    items = [_read_item(item, f"input[{i}]", reading) for i, item in enumerate(given)]
    if all(turn["role"] != "user" for turn in reading.turns):
        raise BadRequest("a conversation needs a user turn", param="input", code="no_user_turn")
    if given[-1].get("status") in _UNFINISHED and items[-1] is not None and "call_id" not in items[-1]:
        raise BadRequest(
            "an unfinished answer is not continued; send it without status, and a question after it",
            param=f"input[{len(given) - 1}].status",
            code="field_not_allowed",
        )
    return [item for item in items if item is not None]


def _read_item(given: object, param: str, reading: Reading) -> Item | None:
    item = mapping(given, param)
    # OpenAI's easy form of a message has no type.
    typed = {**item, "type": "message"} if item.get("type") is None and "role" in item else item
    kind = kind_of(typed, param, served=ITEMS, refused=ITEMS_REFUSED)
    note_unread(item, param, reading.ignored, known=ITEMS[kind])
    return _READERS[kind](item, param, reading)


def _message(item: Mapping[str, Any], param: str, reading: Reading) -> Item:
    role = item.get("role")
    if role not in ROLES:
        raise BadRequest(f"role {role!r} is not allowed; allowed are {list(ROLES)}", param=f"{param}.role")
    content = _joined(item.get("content"), f"{param}.content", reading)
    if role == "assistant":
        _assistant(reading, content)
    else:
        reading.turn(role, content)
    return {"type": "message", "role": role, "content": reading.guard.text(content, f"{param}.content")}


def _joined(content: object, param: str, reading: Reading) -> str:
    return "".join(texts_of(content, param, reading.ignored, parts=PARTS, refused=PARTS_REFUSED))


def _assistant(reading: Reading, content: str | None = None) -> None:
    """The engine puts calls, reasoning and text that follow each other into one turn of the assistant."""
    turns = reading.turns
    if turns and turns[-1]["role"] == "assistant":
        if content is None:
            return
        if turns[-1]["content"] is None:
            turns[-1]["content"] = content
            return
    reading.turn("assistant", content)


def _reasoning(item: Mapping[str, Any], param: str, reading: Reading) -> Item | None:
    """What can be read of it: what another provider has encrypted cannot, and is left out."""
    content, summary = (sequence(item.get(name), f"{param}.{name}") for name in ("content", "summary"))
    whole = texts_of(content, f"{param}.content", reading.ignored, parts=_REASONING, refused={})
    short = texts_of(summary, f"{param}.summary", reading.ignored, parts=_SUMMARY, refused={})
    text = "".join(whole) or "\n\n".join(short)
    if not text:
        return None
    _assistant(reading)
    guarded = reading.guard.text(text, f"{param}.content")
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": guarded}]}


def _call(item: Mapping[str, Any], param: str, reading: Reading) -> Item:
    _assistant(reading)
    arguments = string(item.get("arguments"), f"{param}.arguments")
    named = _named(item, param, reading.guard)
    return {
        "type": "function_call",
        **named,
        "arguments": reading.guard.json_text(arguments, f"{param}.arguments"),
    }


def _custom_call(item: Mapping[str, Any], param: str, reading: Reading) -> Item:
    _assistant(reading)
    text = string(item.get("input"), f"{param}.input")
    named = _named(item, param, reading.guard)
    return {"type": "custom_tool_call", **named, "input": reading.guard.text(text, f"{param}.input")}


def _named(item: Mapping[str, Any], param: str, guard: ControlGuard) -> Item:
    """Which call of which tool it is."""
    names = ("call_id", "name") if item.get("namespace") is None else ("call_id", "name", "namespace")
    found = {n: guard.text(string(item.get(n), f"{param}.{n}"), f"{param}.{n}") for n in names}
    if "namespace" in found:
        check_joined(found["namespace"], found["name"], f"{param}.name", guard)
    return found


def check_joined(namespace: str, name: str, param: str, guard: ControlGuard) -> None:
    """Raise BadRequest where the name that the engine makes of both is a control string."""
    joined = f"{namespace}__{name}"
    if guard.text(joined, param) != joined:
        raise BadRequest(f"{joined!r} holds a control string", param=param, code="control_string")


def _result(item: Mapping[str, Any], param: str, reading: Reading) -> Item:
    output = _joined(item.get("output"), f"{param}.output", reading)
    reading.turn("tool", output)
    where = f"{param}.call_id"
    call_id = reading.guard.text(string(item.get("call_id"), where), where)
    guarded = reading.guard.text(output, f"{param}.output")
    return {"type": item["type"], "call_id": call_id, "output": guarded}


_READERS: Mapping[str, Callable[[Mapping[str, Any], str, Reading], Item | None]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "function_call_output": _result,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _result,
}
