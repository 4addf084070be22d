"""Messages of a row: keys and roles of OpenAI, ShareGPT and OpenAssistant, in OpenAI's words."""

import json
import unicodedata
from typing import Any

from preforch_models.conversation import Message

from preforch_training.data.rows.record import BadRow

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""Roles in small letters."""
SYSTEM = ("system", "developer")
TEXT_PARTS = ("text", "input_text", "output_text")
_INVISIBLE = frozenset("\u2800\u3164\u115f\u1160\uffa0")
# Format and control characters, separators: nothing that a reader sees.
_UNSEEN = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Cn", "Co", "Mn"})


def read_messages(entries: list[Any], *, column: str) -> tuple[Message, ...]:
    """The turns of a list. System turns without a visible character are left out: they say nothing."""
    found = (read_message(entry, column=column, number=number) for number, entry in enumerate(entries, 1))
    return tuple(turn for turn in found if turn.role not in SYSTEM or is_visible(turn.content))


def read_message(entry: Any, *, column: str, number: int) -> Message:
    """One message in OpenAI's or ShareGPT's keys. Keys that nobody knows are left out."""
    place = f"column {column!r}: message {number}"
    if not isinstance(entry, dict):
        raise BadRow(f"{place} must be an object with role and content", entry)
    keys = ("from", "value") if "from" in entry and "role" not in entry else ("role", "content")
    if not set(keys) <= set(entry):
        raise BadRow(f"{place} must have {keys[0]!r} and {keys[1]!r}", sorted(map(str, entry)))
    role = ROLES.get(str(entry[keys[0]]).lower())
    if role is None:
        raise BadRow(f"{place} has an unknown role; allowed are {sorted(ROLES)}", entry[keys[0]])
    calls = _tool_calls(entry, place=place)
    content = _content(entry[keys[1]], place=place)
    if content is None and not calls:
        raise BadRow(f"{place} has no content")
    check_unicode(content or "", column=column)
    fields: dict[str, Any] = {key: entry[key] for key in ("name", "tool_call_id") if entry.get(key)}
    if not calls and not fields:
        return Message(role=role, content=content or "")
    wrong = [key for key, value in fields.items() if not isinstance(value, str)]
    if wrong:
        raise BadRow(f"{place}: {wrong[0]} must be a string", fields[wrong[0]])
    fields["tool_calls"] = calls
    try:
        check_unicode(json.dumps(fields, ensure_ascii=False, allow_nan=False), column=column)
    except (TypeError, ValueError) as error:
        if isinstance(error, BadRow):
            raise
        raise BadRow(f"{place}: tool_calls must be JSON ({error})") from error
    return Message(role=role, content=content or "", **fields)


def _tool_calls(entry: dict[str, Any], *, place: str) -> tuple[dict[str, Any], ...]:
    """Calls in OpenAI's form, that of before 2024 as well, without what Arrow pads them with."""
    calls = entry.get("tool_calls") or []
    if isinstance(calls, str):
        try:
            calls = json.loads(calls)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"{place}: tool_calls must be a list of objects", calls) from error
    function = entry.get("function_call")
    if not calls and isinstance(function, dict) and any(value is not None for value in function.values()):
        calls = [{"type": "function", "function": function}]
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise BadRow(f"{place}: tool_calls must be a list of objects", calls)
    return tuple(_without_nulls(call) for call in calls)


def _content(content: Any, *, place: str) -> str | None:
    """Text, or text parts joined."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRow(f"{place}: content must be a string or a list of text parts", content)
    return "".join(_part(part, place=place) for part in content)


def _part(part: Any, *, place: str) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) and part.get("type") in TEXT_PARTS else None
    if not isinstance(text, str):
        kind = part.get("type") if isinstance(part, dict) else part
        raise BadRow(f"{place}: only parts of type 'text' are read", kind)
    return text


def _without_nulls(value: Any) -> Any:
    """Arrow gives every object the keys of all."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def is_visible(text: str) -> bool:
    """Whether any character of a text can be seen: zero-width and control characters cannot."""
    first = text[:1]
    return (first.isascii() and first.isalnum()) or any(
        not character.isspace()
        and character not in _INVISIBLE
        and unicodedata.category(character) not in _UNSEEN
        for character in text
    )


def check_unicode(text: str, *, column: str) -> None:
    """Raise BadRow for half a character: JSON can say it ("\\ud800"), but no file can hold it."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"column {column!r} is not valid Unicode ({error.reason})", text[error.start]) from error
