"""What the conversation formats beside chat have in common: their tables, and how their objects are read.

In:  a parsed JSON body, and the tables of its format.
Out: the fields that may reach the engine. Objects inside are built anew of the keys that are known, so that
     nothing else of them can reach a chat template; what is left out is noted in `Ignored`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from preforch_service.errors import BadRequest
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.fields import NESTED, keep_allowed, keep_fields, keep_known
from preforch_service.requests.ignored import Ignored

_INDEX = re.compile(r"\[\d+\]")
_STRUCTURES = "structured_outputs"


@dataclass(frozen=True)
class Reading:
    """What is at hand while a conversation is read.

    `turns`: role and content of each message that the engine makes of it, as users sent them, for the
    orchestrator.
    """

    guard: ControlGuard
    ignored: Ignored
    turns: list[dict[str, Any]] = field(default_factory=list)

    def turn(self, role: str, content: str | None) -> None:
        """Add one turn."""
        self.turns.append({"role": role, "content": content})


@dataclass(frozen=True)
class RequestFormat:
    """A wire format: its tables, and how its conversation is read.

    `read` makes the engine's body, before weights, of the fields that are selected, and guards the
    conversation. `guarded`: further fields whose text the template or the answer may hold.
    `changes_nothing`: of refused fields the value that says what happens anyway.
    """

    forwarded: frozenset[str]
    refused: Mapping[str, str]
    guarded: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Reading], dict[str, Any]]
    changes_nothing: Mapping[str, object]

    def select(self, body: Mapping[str, Any], ignored: Ignored) -> dict[str, Any]:
        """The fields that the gateway and the engine read; null counts as absent.

        Raises BadRequest for one that is not served.
        """
        kept = keep_fields(
            body,
            forwarded=self.forwarded,
            refused=self.refused,
            ignored=ignored,
            changes_nothing=self.changes_nothing,
        )
        found = {name: value for name, value in kept.items() if value is not None}
        if isinstance(found.get(_STRUCTURES), dict):
            found[_STRUCTURES] = known_keys(
                found[_STRUCTURES], _STRUCTURES, ignored, known=NESTED[_STRUCTURES]
            )
        return found


def known_keys(
    given: object,
    param: str,
    ignored: Ignored,
    *,
    known: frozenset[str],
    droppable: frozenset[str] | None = frozenset(),
) -> dict[str, Any]:
    """An object of the known keys that have values. `droppable`: others that may be left out; None: all may.

    `cache_control` may always be. Raises BadRequest for another key with a value.
    """
    droppable = None if droppable is None else droppable | {"cache_control"}
    found = {name: value for name, value in mapping(given, param).items() if value is not None}
    return keep_allowed(found, known, param, place_of(param), ignored, droppable=droppable)


def note_unread(given: Mapping[str, Any], param: str, ignored: Ignored, *, known: frozenset[str]) -> None:
    """Note the keys of an object that nobody reads.

    Null and an empty list say nothing: clients send answers back as they got them.
    """
    said = {name: value for name, value in given.items() if value not in (None, [])}
    keep_known(said, known, param, place_of(param), ignored)


def place_of(param: str) -> str:
    """The same for all entries of a list."""
    return _INDEX.sub("", param)


def mapping(given: object, param: str) -> Mapping[str, Any]:
    """The value, if it is an object."""
    if not isinstance(given, dict):
        raise BadRequest(f"{param} must be an object, got {type(given).__name__}", param=param)
    return given


def sequence(given: object, param: str) -> Sequence[Any]:
    """The value, if it is a list; null is an empty one."""
    if given is not None and not isinstance(given, list):
        raise BadRequest(f"{param} must be a list, got {type(given).__name__}", param=param)
    return given or []


def string(given: object, param: str) -> str:
    """The value, if it is a string."""
    if not isinstance(given, str):
        raise BadRequest(f"{param} must be a string, got {type(given).__name__}", param=param)
    return given


def texts_of(
    content: object, param: str, ignored: Ignored, *, parts: Mapping[str, str], refused: Mapping[str, str]
) -> list[str]:
    """The texts of a content that is a string or a list of parts.

    `parts`: the types of parts that hold text, and in which key; `refused`: why others are not served.
    """
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise BadRequest(f"{param} must be a string or a list of text parts", param=param)
    texts = []
    for i, part in enumerate(content):
        kind = kind_of(part, f"{param}[{i}]", served=parts, refused=refused)
        texts.append(string(part.get(parts[kind]), f"{param}[{i}].{parts[kind]}"))
        note_unread(part, f"{param}[{i}]", ignored, known=frozenset({"type", parts[kind]}))
    return texts


def kind_of(given: object, param: str, *, served: Mapping[str, object], refused: Mapping[str, str]) -> str:
    """The `type` of a part, item or tool, if it is served. Raises BadRequest that says why it is not."""
    kind = mapping(given, param).get("type")
    if isinstance(kind, str) and kind in served:
        return kind
    reason = refused.get(kind, "it is not known here") if isinstance(kind, str) else "it must be a string"
    message = f"type {kind!r} is not served: {reason}; served are {list(served)}"
    raise BadRequest(message, param=f"{param}.type", code="field_not_allowed")
