"""Nothing that the template can see holds a control string."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from poison import POISON, STRINGS, clean
from preforch_service.errors import BadRequest
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.ignored import Ignored
from preforch_service.requests.messages import guard_messages, join_parts, orchestrator_text, read_messages
from preforch_service.settings import ControlMode
from preforch_service.telemetry.metrics import Metrics


def read(messages: object) -> list[dict[str, Any]]:
    return read_messages(messages, Ignored("reject"))


def guard(mode: ControlMode = "escape") -> ControlGuard:
    return ControlGuard(STRINGS, mode=mode, metrics=Metrics())


def test_strings_and_keys_are_escaped_at_any_depth() -> None:
    value = {POISON: [{"a": POISON, "b": [POISON, 1, None, True]}]}
    assert not clean(value)
    guarded = guard().value(value, "tools")
    assert clean(guarded)
    assert json.dumps(guarded, ensure_ascii=False).replace("\u2060", "") == json.dumps(value)


@pytest.mark.parametrize("mode", ["escape", "reject"])
def test_lone_surrogates_in_json_text_are_refused(mode: ControlMode) -> None:
    with pytest.raises(BadRequest, match="lone surrogate") as caught:
        guard(mode).json_text('{"\\ud800": "<W1>"}', "arguments")
    assert caught.value.param is None


def test_the_name_of_a_place_stays_short_below_a_long_key() -> None:
    with pytest.raises(BadRequest) as caught:
        guard("reject").value({"k" * 1_000_000: [[{"a": "<W1>"}] * 2] * 1000}, "tools")
    assert len(caught.value.param or "") < 300


def test_rejection_names_the_place() -> None:
    with pytest.raises(BadRequest, match="<W1>") as caught:
        guard("reject").value([{"a": {"b": POISON}}], "tools")
    assert caught.value.param == "tools[0].a.b"


@given(st.lists(st.sampled_from(["<", "W1>", "<W1>", " 0.70", "<|im_", "end|>", "\u2060", "x"])).map("".join))
def test_no_text_survives_escaping_with_a_control_string_in_it(text: str) -> None:
    escaped = guard().text(text, "prompt")
    assert STRINGS.find(escaped) is None
    assert escaped.replace("\u2060", "") == text.replace("\u2060", "")


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": "<W1>"}',
        '{"a": "\\u003cW1>"}',
        '{"\\u003cW1>": 1}',
        '["\\u003cW1\\u003e"]',
        '"\\u003cW1>"',
        "{broken <W1>",
    ],
)
def test_arguments_of_tool_calls_are_decoded_before_they_are_checked(arguments: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = read([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}])
    assert not clean(messages)
    assert clean(guard_messages(messages, guard()))


@pytest.mark.parametrize("mode", ["escape", "reject"])
@pytest.mark.parametrize("depth", [70, 970, 5000])
def test_arguments_too_deep_to_be_decoded_here_are_refused(mode: ControlMode, depth: int) -> None:
    hidden = '{"a":' * depth + '"\\u003c|im_end|>"' + "}" * depth
    with pytest.raises(BadRequest, match="nested"):
        guard(mode).json_text(hidden, "arguments")


def test_arguments_with_a_number_that_python_does_not_read_are_refused() -> None:
    with pytest.raises(BadRequest, match="digits"):
        guard().json_text('{"a": ' + "9" * 5000 + ', "b": "\\u003c|im_end|>"}', "arguments")


def test_harmless_arguments_keep_their_bytes() -> None:
    arguments = '{"b":  1, "a": "\\u00e9"}'
    assert guard().json_text(arguments, "x") == arguments


def test_every_field_of_a_message_is_guarded() -> None:
    fields = {"name": POISON, "reasoning": POISON, "reasoning_content": POISON, "refusal": POISON}
    call = {"id": POISON, "type": "function", "function": {"name": POISON, "arguments": {"a": POISON}}}
    given_messages = [
        {"role": "user", "content": POISON, **fields},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": POISON, "tool_call_id": POISON},
        {"role": "developer", "content": POISON, "tools": [{"function": {"description": POISON}}]},
    ]
    assert clean(guard_messages(read(given_messages), guard()))


def test_parts_are_joined_before_they_are_checked() -> None:
    parts = [{"type": "text", "text": "<W"}, {"type": "text", "text": "1>"}]
    messages = read([{"role": "user", "content": parts}])
    assert messages[0]["content"] == "<W1>"
    assert orchestrator_text(messages) == "<W1>"
    assert guard_messages(messages, guard())[0]["content"] == "<\u2060W1>"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        (["x"], "messages[0]"),
        ([{"role": "system", "content": "x"}], "messages"),
        ([{"role": "critic", "content": "x"}], "messages[0].role"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages[0].content[0].type",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "x", "uuid": "y"}]}],
            "messages[0].content[0].uuid",
        ),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": "x", "task": "y"}], "messages[0].task"),
        ([{"role": "user", "content": "x", "tool_calls": ["y"]}], "messages[0].tool_calls[0]"),
        ([{"role": "user", "content": "x", "tool_calls": 5}], "messages[0].tool_calls"),
        ([{"role": "user", "content": "x", "tool_calls": {"a": 1}}], "messages[0].tool_calls"),
    ],
)
def test_wrong_messages_are_refused_by_name(messages: object, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        guard_messages(read(messages), guard())
    assert caught.value.param == param


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    answer: dict[str, object] = {
        "role": "assistant",
        "content": "x",
        "audio": None,
        "function_call": None,
        "annotations": [],
    }
    messages = read([{"role": "user", "content": "x"}, answer])
    assert messages[1] == {"role": "assistant", "content": "x"}


def test_nesting_has_a_limit() -> None:
    value: object = "x"
    for _ in range(100):
        value = [value]
    with pytest.raises(BadRequest, match="nested"):
        guard().value(value, "tools")


def test_refusal_parts_count_as_text() -> None:
    assert (
        join_parts(
            [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}], "content", Ignored("reject")
        )
        == "ab"
    )
