"""Reads the messages and the system prompt of an Anthropic request.

In:  `system` and `messages` as a user sent them.
Out: turns for the orchestrator, and both for the engine: built anew of known keys, in every message one block
     of text, no control strings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from preforch_service.errors import BadRequest
from preforch_service.requests.anthropic.fields import (
    BILLING,
    BLOCK_FIELDS,
    BLOCKS,
    BLOCKS_REFUSED,
    MESSAGE,
    ROLES,
    TEXT,
)
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.formats import (
    Reading,
    kind_of,
    mapping,
    note_unread,
    place_of,
    string,
    texts_of,
)

Block = dict[str, Any]


def read_system(given: object, reading: Reading) -> str:
    """The system prompt as one string."""
    text = _system_text(given, "system", reading)
    reading.turn("system", text)
    return reading.guard.text(text, "system")


def _system_text(given: object, param: str, reading: Reading) -> str:
    texts = texts_of(given, param, reading.ignored, parts=TEXT, refused=BLOCKS_REFUSED)
    kept = [text for text in texts if not text.startswith(BILLING)]
    if len(kept) < len(texts):
        reading.ignored.drop(BILLING, param=param, place=place_of(param))
    return "".join(kept)


def read_messages(given: object, reading: Reading) -> list[Block]:
    """The engine's messages; their turns are added to those of the reading. Raises BadRequest."""
    if not isinstance(given, list) or not given:
        raise BadRequest("messages must be a list with at least one message", param="messages")
    read = [_read_message(message, f"messages[{i}]", reading) for i, message in enumerate(given)]
    if all(turn["role"] != "user" for turn in reading.turns):
        raise BadRequest("a conversation needs a user turn", param="messages", code="no_user_turn")
    return [message for message in read if message is not None]


def _read_message(given: object, param: str, reading: Reading) -> Block | None:
    """The message, unless it holds nothing: the engine makes no turn of that."""
    message = mapping(given, param)
    role = message.get("role")
    note_unread(message, param, reading.ignored, known=MESSAGE)
    if role not in ROLES:
        raise BadRequest(f"role {role!r} is not allowed; allowed are {list(ROLES)}", param=f"{param}.role")
    content, where = message.get("content"), f"{param}.content"
    if role == "system":
        content = _system_text(content, where, reading)
    if isinstance(content, str):
        reading.turn(role, content)
        return {"role": role, "content": reading.guard.text(content, where)}
    blocks = _read_blocks(content, where, role, reading)
    return {"role": role, "content": blocks} if blocks else None


def _read_blocks(given: object, param: str, role: str, reading: Reading) -> list[Block]:
    """The blocks, in the order in which the engine makes turns of them: results, thinking, text, calls."""
    guard = reading.guard
    if not isinstance(given, list):
        raise BadRequest(f"{param} must be a string or a list of content blocks", param=param)
    by_type: dict[str, list[tuple[str, Mapping[str, Any]]]] = {kind: [] for kind in BLOCKS[role]}
    for i, block in enumerate(given):
        kind = kind_of(block, f"{param}[{i}]", served=by_type, refused=BLOCKS_REFUSED)
        by_type[kind].append((f"{param}[{i}]", block))
        note_unread(block, f"{param}[{i}]", reading.ignored, known=BLOCK_FIELDS[kind])
    blocks = [_result(block, where, reading) for where, block in by_type.get("tool_result", ())]
    thinking = _text(by_type.get("thinking", ()), "thinking")
    if thinking:
        blocks.append({"type": "thinking", "thinking": guard.text(thinking, param)})
    text = _text(by_type["text"], "text")
    if text:
        blocks.append({"type": "text", "text": guard.text(text, param)})
    blocks += [_call(block, where, guard) for where, block in by_type.get("tool_use", ())]
    if text or (blocks and role == "assistant"):
        reading.turn(role, text)
    return blocks


def _text(found: Sequence[tuple[str, Mapping[str, Any]]], key: str) -> str:
    """The texts of blocks, joined as the engine joins them, so that what is checked is what is printed."""
    return "".join(string(block.get(key), f"{where}.{key}") for where, block in found)


def _call(block: Mapping[str, Any], param: str, guard: ControlGuard) -> Block:
    found = {name: guard.text(string(block.get(name), f"{param}.{name}"), param) for name in ("id", "name")}
    arguments = mapping(block.get("input"), f"{param}.input")
    return {"type": "tool_use", **found, "input": guard.value(arguments, f"{param}.input")}


def _result(block: Mapping[str, Any], param: str, reading: Reading) -> Block:
    content = block.get("content")
    where = f"{param}.content"
    given = [] if content is None else content
    text = "\n".join(texts_of(given, where, reading.ignored, parts=TEXT, refused=BLOCKS_REFUSED))
    reading.turn("tool", text)
    number = string(block.get("tool_use_id"), f"{param}.tool_use_id")
    return {
        "type": "tool_result",
        "tool_use_id": reading.guard.text(number, f"{param}.tool_use_id"),
        "content": reading.guard.text(text, where),
    }
