"""Reads a Responses request: the conversation, its tools, and what bounds the answer.

In:  the fields that may reach the engine, and a reading.
Out: `RESPONSES`, whose `read` gives the reading its turns, and fields for the engine.
"""

from collections.abc import Mapping
from typing import Any

from preforch_service.requests.formats import (
    Reading,
    RequestFormat,
    kind_of,
    known_keys,
    place_of,
    sequence,
    string,
)
from preforch_service.requests.ignored import Ignored
from preforch_service.requests.responses import fields
from preforch_service.requests.responses.items import check_joined, read_input

_GRAMMAR = {"grammar": "a grammar could force control tokens into the answer"}


def read_responses(body: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """Rebuilt fields. Raises BadRequest."""
    if "instructions" in body:
        reading.turn("system", string(body["instructions"], "instructions"))
    found = {**body, "input": read_input(body.get("input"), reading)}
    found |= {
        name: read(body[name], name, reading.ignored) for name, read in _REBUILT.items() if name in body
    }
    guard = reading.guard
    for i, tool in enumerate(found.get("tools", ())):
        for inner in tool.get("tools", ()):
            where = f"tools[{i}].name"
            check_joined(guard.text(tool["name"], where), guard.text(inner["name"], where), where, guard)
    # Of which nothing is left is as if it had not been there, also where the engine repeats it.
    return {name: value for name, value in found.items() if value or name not in _REBUILT}


def _tools(given: object, param: str, ignored: Ignored) -> list[dict[str, Any]]:
    return [_tool(tool, f"{param}[{i}]", ignored) for i, tool in enumerate(sequence(given, param))]


def _tool(given: object, param: str, ignored: Ignored) -> dict[str, Any]:
    kind = kind_of(given, param, served=fields.TOOLS, refused=fields.TOOLS_REFUSED)
    tool = known_keys(given, param, ignored, known=fields.TOOLS[kind], droppable=None)
    string(tool.get("name"), f"{param}.name")
    if "format" in tool:
        where = f"{param}.format"
        kind_of(tool["format"], where, served={"text": "text"}, refused=_GRAMMAR)
        tool["format"] = known_keys(tool["format"], where, ignored, known=frozenset({"type"}), droppable=None)
    if kind == "namespace":
        tool["tools"] = _functions(tool.get("tools"), f"{param}.tools", ignored)
    return tool


def _functions(given: object, param: str, ignored: Ignored) -> list[dict[str, Any]]:
    """The tools of a namespace: the engine prints functions alone."""
    for i, tool in enumerate(sequence(given, param)):
        kind_of(tool, f"{param}[{i}]", served={"function": "function"}, refused=fields.TOOLS_REFUSED)
    return _tools(given, param, ignored)


def _tool_choice(given: object, param: str, ignored: Ignored) -> object:
    if isinstance(given, str):
        return given
    kind = kind_of(given, param, served=fields.CHOICES, refused=fields.TOOLS_REFUSED)
    return known_keys(given, param, ignored, known=fields.CHOICES[kind])


def _text(given: object, param: str, ignored: Ignored) -> dict[str, Any]:
    text = known_keys(given, param, ignored, known=frozenset({"format"}), droppable=frozenset({"verbosity"}))
    if "format" in text:
        where = f"{param}.format"
        kind = kind_of(text["format"], where, served=fields.FORMATS, refused={})
        text["format"] = known_keys(text["format"], where, ignored, known=fields.FORMATS[kind])
    return text


def _reasoning(given: object, param: str, ignored: Ignored) -> dict[str, Any]:
    """How much of it. Summaries there are none: reasoning comes whole."""
    others = frozenset({"summary", "generate_summary", "context", "mode"})
    return known_keys(given, param, ignored, known=frozenset({"effort"}), droppable=others)


def _include(given: object, param: str, ignored: Ignored) -> list[str]:
    names = [string(name, f"{param}[{i}]") for i, name in enumerate(sequence(given, param))]
    for i, name in enumerate(names):
        if name not in fields.INCLUDED:
            ignored.drop(name, param=f"{param}[{i}]", place=place_of(param))
    return [name for name in names if name in fields.INCLUDED]


_REBUILT = {
    "tools": _tools,
    "tool_choice": _tool_choice,
    "text": _text,
    "reasoning": _reasoning,
    "include": _include,
}

RESPONSES = RequestFormat(
    forwarded=fields.FORWARDED,
    refused=fields.REFUSED,
    changes_nothing=fields.CHANGES_NOTHING,
    guarded=fields.TEMPLATE_SEES + fields.CONSTRAINTS,
    read=read_responses,
)
