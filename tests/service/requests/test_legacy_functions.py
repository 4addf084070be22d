"""Functions of the old kind: the same request as with tools, and an answer in their own terms."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import CHAT, FakeAnswer, FakeUpstream, chunk, json_answer, stream_answer
from preforch_models.bundle import Bundle
from preforch_service.errors import BadRequest
from preforch_service.requests.legacy_functions import with_tool_turns, with_tools
from served import DONE, Served, serve

FUNCTION = {"name": "f", "parameters": {"type": "object"}}
TOOLS = {"tools": [{"type": "function", "function": FUNCTION}], "parallel_tool_calls": False}
USER = {"role": "user", "content": "hello"}
CALL = {"name": "f", "arguments": '{"x": "hi"}'}
CALLED: dict[str, Any] = {"role": "assistant", "content": None, "function_call": CALL}
RESULT = {"role": "function", "name": "f", "content": "ok"}
NEW_TURNS: list[dict[str, Any]] = [
    USER,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": CALL}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
]


def answer(body: dict[str, Any]) -> FakeAnswer:
    """An engine that calls the function."""
    call = {"id": "c", "type": "function", "function": CALL}
    if body.get("stream"):
        first = {"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}, "finish_reason": None}
        last = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
        pieces = [chunk("", choices=[choice]) for choice in (first, last)]
        return stream_answer(chunk("x"), *pieces, b": silent\n\n", DONE)
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    choices = [{"index": 0, "message": said, "finish_reason": "tool_calls"}]
    return json_answer(CHAT | {"choices": choices})


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle, upstream=FakeUpstream(answer))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {}),
        ({"function_call": None}, {}),
        ({"function_call": "none"}, {"tool_choice": "none"}),
        ({"function_call": "auto"}, {"tool_choice": "auto"}),
        (
            {"function_call": {"name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
    ],
)
def test_functions_become_tools(old: dict[str, object], new: dict[str, object]) -> None:
    assert with_tools({"functions": [FUNCTION], **old}) == TOOLS | new
    assert with_tools({"seed": 1, "functions": None}) == {"seed": 1}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"functions": []}, "functions"),
        ({"functions": {}}, "functions"),
        ({"functions": ["f"]}, "functions[0]"),
        ({"function_call": "auto"}, "function_call"),
        ({"functions": [FUNCTION], "function_call": "required"}, "function_call"),
        ({"functions": [FUNCTION], "function_call": {"name": "f", "x": 1}}, "function_call"),
        ({"functions": [FUNCTION], "tools": []}, "tools"),
        ({"functions": [FUNCTION], "tool_choice": "auto"}, "tool_choice"),
    ],
)
def test_what_is_unclear_is_refused(body: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        with_tools(body)
    assert refused.value.param == param


def test_turns_of_functions_become_turns_of_tools() -> None:
    assert with_tool_turns([USER, CALLED, RESULT]) == NEW_TURNS
    again = with_tool_turns([USER, CALLED, RESULT, CALLED, RESULT])
    assert [turn["tool_call_id"] for turn in again if isinstance(turn, dict) and turn["role"] == "tool"] == [
        "call_1",
        "call_3",
    ]
    assert with_tool_turns(NEW_TURNS) == NEW_TURNS


@pytest.mark.parametrize(
    ("turns", "param"),
    [
        ([USER, RESULT], "messages[1].name"),
        ([USER, CALLED, RESULT | {"name": "g"}], "messages[2].name"),
        ([USER, CALLED, RESULT, RESULT], "messages[3].name"),
        ([NEW_TURNS[1], RESULT], "messages[1].name"),
        ([USER | {"function_call": CALL}], "messages[0].function_call"),
        ([CALLED | NEW_TURNS[1]], "messages[0].function_call"),
        ([CALLED | {"function_call": "f"}], "messages[0].function_call"),
        ([CALLED | {"function_call": {"arguments": ""}}], "messages[0].function_call"),
    ],
)
def test_turns_that_leave_open_what_they_answer_are_refused(turns: list[object], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        with_tool_turns(turns)
    assert refused.value.param == param


def test_a_client_of_functions_is_answered_with_a_function_call(served: Served) -> None:
    for stream in (False, True):
        served.chat(messages=NEW_TURNS, stream=stream, **TOOLS)
        old = served.chat(messages=[USER, CALLED, RESULT], stream=stream, functions=[FUNCTION])
        new, same = ({**sent, "request_id": ""} for sent in served.upstream.bodies[-2:])
        assert json.dumps(new, sort_keys=True) == json.dumps(same, sort_keys=True)
        assert "X-Preference-Ignored" not in old.headers
        if stream:
            events = old.content.split(b"\n\n")
            said, call, end = (json.loads(event[5:]) for event in events[:3])
            assert events[3:] == [b": silent", b"data: [DONE]", b""]
            assert said["choices"][0]["delta"] == {"content": "x"}
            assert said["preference"]["source"] == "orchestrator"
            assert call["choices"][0]["delta"] == {"function_call": CALL}
        else:
            end = old.json()
            assert end["preference"]["source"] == "orchestrator"
            assert end["choices"][0]["message"] == {
                "role": "assistant",
                "content": None,
                "function_call": CALL,
            }
        assert end["choices"][0]["finish_reason"] == "function_call"
