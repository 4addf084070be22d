"""Functions of the old kind: a request in terms of tools, which replaced them, and its answer as functions.

| old | new |
|---|---|
| `functions: [F]` | `tools: [{"type": "function", "function": F}]`, one call at a time |
| `function_call: "auto"`, `"none"`, `{"name": N}` | `tool_choice`, the same or `{"type": "function", ...}` |
| `function_call` of an assistant's turn | `tool_calls` with one call |
| a turn of role `function` | one of role `tool`, which answers the call of that name before it |
"""

from collections.abc import Mapping, Sequence
from typing import Any

from preforch_service.errors import BadRequest

_CHOICES = ("none", "auto")


def asks_for_functions(body: Mapping[str, Any]) -> bool:
    """Whether the answer has to name a function and not a tool."""
    return body.get("functions") is not None


def with_tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat with tools in place of functions. Raises BadRequest."""
    fields = dict(body)
    functions, choice = fields.pop("functions", None), fields.pop("function_call", None)
    if functions is None:
        if choice is not None:
            raise BadRequest("function_call needs functions; tools have tool_choice", param="function_call")
        return fields
    if not isinstance(functions, list) or not functions:
        raise BadRequest("functions must be a list with at least one function", param="functions")
    for new in ("tools", "tool_choice"):
        if fields.get(new) is not None:
            raise BadRequest(f"functions and {new} exclude each other; {new} replaced them", param=new)
    for i, function in enumerate(functions):
        if not isinstance(function, dict):
            raise BadRequest("a function must be an object", param=f"functions[{i}]")
    fields["tools"] = [{"type": "function", "function": function} for function in functions]
    fields["parallel_tool_calls"] = False
    if choice is not None:
        fields["tool_choice"] = _tool_choice(choice)
    return fields


def _tool_choice(choice: object) -> object:
    if isinstance(choice, str) and choice in _CHOICES:
        return choice
    if isinstance(choice, dict) and set(choice) == {"name"}:
        return {"type": "function", "function": choice}
    allowed = f"one of {list(_CHOICES)} or an object with a name"
    raise BadRequest(f"function_call must be {allowed}", param="function_call")


def with_tool_turns(messages: Sequence[object]) -> list[object]:
    """The messages with tool calls in place of function calls. Raises BadRequest where that is not clear."""
    turns: list[object] = []
    # Name and id of the call that a result may belong to.
    called: tuple[str, str] | None = None
    for i, message in enumerate(messages):
        param = f"messages[{i}]"
        if not isinstance(message, dict):
            turns.append(message)
        elif message.get("role") == "function":
            turns.append(_tool_turn(message, called, param))
            called = None
        elif message.get("function_call") is not None:
            called = (_called_name(message, param), f"call_{i}")
            turns.append(_calling_turn(message, called[1]))
        else:
            turns.append(message)
    return turns


def _called_name(message: Mapping[str, Any], param: str) -> str:
    if message.get("role") != "assistant" or message.get("tool_calls"):
        reason = "only an assistant's turn has a function_call, and then no tool_calls"
        raise BadRequest(reason, param=f"{param}.function_call")
    call = message["function_call"]
    name = call.get("name") if isinstance(call, dict) else None
    if not isinstance(name, str):
        raise BadRequest(
            "function_call must be an object with name and arguments", param=f"{param}.function_call"
        )
    return name


def _calling_turn(message: Mapping[str, Any], number: str) -> dict[str, Any]:
    call = {"id": number, "type": "function", "function": message["function_call"]}
    others = {key: value for key, value in message.items() if key not in ("function_call", "tool_calls")}
    return {"content": None, **others, "tool_calls": [call]}


def _tool_turn(message: Mapping[str, Any], called: tuple[str, str] | None, param: str) -> dict[str, Any]:
    if called is None or message.get("name") != called[0]:
        raise BadRequest(
            "a turn of role 'function' names the function_call before it that it answers; "
            "results of tools have the role 'tool' and a tool_call_id",
            param=f"{param}.name",
        )
    others = {key: value for key, value in message.items() if key not in ("role", "name")}
    return {"role": "tool", "tool_call_id": called[1], **others}


def with_function_call(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A whole answer, or one event of it, with a function call in place of a tool call."""
    return {**answer, "choices": [_old_choice(choice) for choice in answer["choices"]]}


def _old_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    old = dict(choice)
    if old.get("finish_reason") == "tool_calls":
        old["finish_reason"] = "function_call"
    for key in ("message", "delta"):
        calls = (old.get(key) or {}).get("tool_calls")
        if calls:
            said = {name: value for name, value in old[key].items() if name != "tool_calls"}
            old[key] = said | {"function_call": calls[0]["function"]}
    return old
