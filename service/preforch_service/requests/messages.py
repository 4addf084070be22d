"""Messages of a chat request.

In:  `messages` as a user sent them. Out: the orchestrator's reading of them (original text), and the messages
     that the engine gets: only known fields, content as one string, no control strings, functions as tools.
"""

from typing import Any

from preforch_models.conversation import Message, conversation_text

from preforch_service.errors import BadRequest
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.fields import (
    CALLED_FIELDS,
    MEDIA,
    MEDIA_PARTS,
    MESSAGE_FIELDS,
    MESSAGE_REFUSED,
    ROLES,
    TEXT_PARTS,
    TOOL_CALL_FIELDS,
    keep_known,
)
from preforch_service.requests.ignored import Ignored
from preforch_service.requests.legacy_functions import with_tool_turns

_IN_CALL = "messages.tool_calls"


def read_messages(given: object, ignored: Ignored) -> list[dict[str, Any]]:
    """Check shape, roles and fields; join the parts of every content. What is dropped is noted in `ignored`.

    Raises BadRequest.
    """
    if not isinstance(given, list) or not given:
        raise BadRequest("messages must be a list with at least one message", param="messages")
    turns = enumerate(with_tool_turns(given))
    messages = [_read_message(message, f"messages[{i}]", ignored) for i, message in turns]
    if all(message["role"] != "user" for message in messages):
        raise BadRequest("a conversation needs a user turn", param="messages", code="no_user_turn")
    return messages


def _read_message(given: object, param: str, ignored: Ignored) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BadRequest("a message must be an object", param=param)
    if given.get("role") not in ROLES:
        raise BadRequest(
            f"role {given.get('role')!r} is not allowed; allowed are {list(ROLES)}", param=f"{param}.role"
        )
    message = _known_fields(given, param, ignored)
    if message.get("tool_calls") is not None:
        message["tool_calls"] = _tool_calls(message["tool_calls"], f"{param}.tool_calls", ignored)
    content = join_parts(given.get("content"), f"{param}.content", ignored)
    if content is None and given["role"] != "assistant":
        raise BadRequest("content is missing", param=f"{param}.content")
    if content is not None or "content" in given:
        message["content"] = content
    return message


def _known_fields(given: dict[str, Any], param: str, ignored: Ignored) -> dict[str, Any]:
    # Clients send answers back as they got them, with `"audio": null` and the like.
    message = {key: value for key, value in given.items() if key in MESSAGE_FIELDS or value not in (None, [])}
    for name, reason in MESSAGE_REFUSED.items():
        if message.get(name, False) is not False:
            raise BadRequest(
                f"message field {name!r} is not allowed: {reason}",
                param=f"{param}.{name}",
                code="field_not_allowed",
            )
    return keep_known(message, MESSAGE_FIELDS, param, "messages", ignored)


def _tool_calls(given: object, param: str, ignored: Ignored) -> list[object]:
    if not isinstance(given, list):
        raise BadRequest(f"tool_calls must be a list, got {type(given).__name__}", param=param)
    return [_tool_call(call, f"{param}[{i}]", ignored) for i, call in enumerate(given)]


def _tool_call(given: object, param: str, ignored: Ignored) -> dict[str, Any]:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(function, dict):
        raise BadRequest("a tool call must hold a function object", param=param)
    call = keep_known(given, TOOL_CALL_FIELDS, param, _IN_CALL, ignored)
    call["function"] = keep_known(
        function, CALLED_FIELDS, f"{param}.function", f"{_IN_CALL}.function", ignored
    )
    return call


def join_parts(content: object, param: str, ignored: Ignored) -> str | None:
    """Content as one string, so that what is checked for control strings is what the template prints."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest("content must be a string or a list of text parts", param=param)
    return "".join(_part_text(part, f"{param}[{i}]", ignored) for i, part in enumerate(content))


def _part_text(part: object, param: str, ignored: Ignored) -> str:
    if not isinstance(part, dict):
        raise BadRequest("a content part must be an object", param=param)
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in TEXT_PARTS:
        media = isinstance(kind, str) and any(medium in kind for medium in MEDIA_PARTS)
        reason = MEDIA if media else f"served are {list(TEXT_PARTS)}"
        raise BadRequest(f"content part type {kind!r} is not served: {reason}", param=f"{param}.type")
    key = TEXT_PARTS[kind]
    text = part.get(key)
    if not isinstance(text, str):
        raise BadRequest(f"a {kind!r} part holds {key!r}, a string", param=param)
    keep_known(part, frozenset({"type", key}), param, "messages.content", ignored)
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
            arguments = call["function"].get("arguments")
            if isinstance(arguments, str):
                where = f"{param}.tool_calls[{j}].function.arguments"
                clean["tool_calls"][j]["function"]["arguments"] = guard.json_text(arguments, where)
        guarded.append(clean)
    return guarded
