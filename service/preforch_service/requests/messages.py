"""Messages of a chat request.

In:  `messages` as a user sent them. Out: the orchestrator's reading of them (original text), and the messages
     that the engine gets: only known fields, content as one string, no control strings.
"""

from typing import Any

from preforch_models.conversation import Message, conversation_text

from preforch_service.errors import BadRequest
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.fields import MESSAGE_FIELDS, MESSAGE_REFUSED, ROLES, TEXT_PARTS


def read_messages(given: object) -> list[dict[str, Any]]:
    """Check shape, roles and fields; join the parts of every content. Raises BadRequest."""
    if not isinstance(given, list) or not given:
        raise BadRequest("messages must be a list with at least one message", param="messages")
    messages = [_read_message(message, f"messages[{i}]") for i, message in enumerate(given)]
    if all(message["role"] != "user" for message in messages):
        raise BadRequest("a conversation needs a user turn", param="messages", code="no_user_turn")
    return messages


def _read_message(given: object, param: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BadRequest("a message must be an object", param=param)
    if given.get("role") not in ROLES:
        raise BadRequest(
            f"role {given.get('role')!r} is not allowed; allowed are {list(ROLES)}", param=f"{param}.role"
        )
    # Clients send answers back as they got them, with `"audio": null` and the like.
    message = {key: value for key, value in given.items() if key in MESSAGE_FIELDS or value not in (None, [])}
    unknown = next((key for key in message if key not in MESSAGE_FIELDS), None)
    if unknown is not None:
        reason = MESSAGE_REFUSED.get(unknown, "unknown field")
        raise BadRequest(f"message field {unknown!r} is not allowed: {reason}", param=f"{param}.{unknown}")
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise BadRequest(
            f"tool_calls must be a list, got {type(calls).__name__}", param=f"{param}.tool_calls"
        )
    content = join_parts(given.get("content"), f"{param}.content")
    if content is None and given["role"] != "assistant":
        raise BadRequest("content is missing", param=f"{param}.content")
    if content is not None or "content" in given:
        message["content"] = content
    return message


def join_parts(content: object, param: str) -> str | None:
    """Content as one string, so that what is checked for control strings is what the template prints."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest("content must be a string or a list of text parts", param=param)
    return "".join(_part_text(part, f"{param}[{i}]") for i, part in enumerate(content))


def _part_text(part: object, param: str) -> str:
    if not isinstance(part, dict):
        raise BadRequest("a content part must be an object", param=param)
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        raise BadRequest(
            f"content part type {kind!r} is not served; served are {list(TEXT_PARTS)}", param=f"{param}.type"
        )
    key = TEXT_PARTS[kind]
    text = part.get(key)
    if not isinstance(text, str) or set(part) - {"type", key}:
        raise BadRequest(f"a {kind!r} part holds {key!r}, a string, and nothing else", param=param)
    return text


def orchestrator_text(messages: list[dict[str, Any]]) -> str:
    """What the orchestrator reads: the original text, before escaping."""
    return conversation_text([Message(role=m["role"], content=m.get("content") or "") for m in messages])


def guard_messages(messages: list[dict[str, Any]], guard: ControlGuard) -> list[dict[str, Any]]:
    """The messages without control strings.

    Arguments of tool calls are JSON in a string, which the engine decodes.
    """
    guarded = []
    for i, message in enumerate(messages):
        param = f"messages[{i}]"
        clean: dict[str, Any] = {key: guard.value(value, f"{param}.{key}") for key, value in message.items()}
        for j, call in enumerate(message.get("tool_calls") or []):
            arguments = _arguments(call, f"{param}.tool_calls[{j}]")
            if arguments is not None:
                where = f"{param}.tool_calls[{j}].function.arguments"
                clean["tool_calls"][j]["function"]["arguments"] = guard.json_text(arguments, where)
        guarded.append(clean)
    return guarded


def _arguments(call: object, param: str) -> str | None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise BadRequest("a tool call must hold a function object", param=param)
    arguments = function.get("arguments")
    return arguments if isinstance(arguments, str) else None
