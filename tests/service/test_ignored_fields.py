"""What clients send beyond what the engine reads: dropped, counted and named, or refused in words."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from fakes import FakeUpstream, any_answer
from preforch_models.bundle import Bundle
from served import HELLO, Served, error_of, serve

HEADER = "X-Preference-Ignored"
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": "hi"}'}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
AGENT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "ok"}]},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
}
"""What an agent sends, so that every place is there."""
EVERYWHERE: dict[str, tuple[tuple[str | int, ...], object]] = {
    "store": (("store",), True),
    "metadata": (("metadata",), {"user": "<W1>", "preference_weights": {"helpful": 1}}),
    "service_tier": (("service_tier",), "flex"),
    "safety_identifier": (("safety_identifier",), "u"),
    "prompt_cache_key": (("prompt_cache_key",), "k"),
    "prompt_cache_retention": (("prompt_cache_retention",), "24h"),
    "prompt_cache_options": (("prompt_cache_options",), {"mode": "auto"}),
    "promptCacheKey": (("promptCacheKey",), "k"),
    "verbosity": (("verbosity",), "low"),
    "modalities": (("modalities",), ["text"]),
    "prediction": (("prediction",), {"type": "content", "content": "<W1>"}),
    "cache_control": (("cache_control",), {"type": "ephemeral"}),
    "reasoning": (("reasoning",), {"effort": "high"}),
    "stream_options.include_obfuscation": (("stream_options", "include_obfuscation"), False),
    "messages.cache_control": (("messages", 0, "cache_control"), {"type": "ephemeral"}),
    "messages.agent": (("messages", 1, "agent"), "coder"),
    "messages.traceId": (("messages", 1, "traceId"), 0),
    "messages.reasoning_details": (("messages", 2, "reasoning_details"), [{"text": "<W1>"}]),
    "messages.content.cache_control": (("messages", 3, "content", 0, "cache_control"), {"type": "ephemeral"}),
    "messages.tool_calls.index": (("messages", 2, "tool_calls", 0, "index"), 0),
    "messages.tool_calls.function.parsed_arguments": (
        ("messages", 2, "tool_calls", 0, "function", "parsed_arguments"),
        {"x": "<W1>"},
    ),
    "tools.cache_control": (("tools", 0, "cache_control"), {"type": "ephemeral"}),
    "tool_choice.cache_control": (("tool_choice", "cache_control"), {"type": "ephemeral"}),
    "tools.function.cache_control": (("tools", 0, "function", "cache_control"), {"type": "ephemeral"}),
}
"""By the name in the header: where a field stands in `AGENT`, and a value."""


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle, upstream=FakeUpstream(any_answer))


def with_field(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    body = deepcopy(AGENT)
    inside: Any = body
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    return body


def engine_bytes(served: Served, path: str, body: object) -> tuple[httpx.Response, bytes]:
    """The answer, and what the engine was sent, without the id that differs each time."""
    response = served.post(path, body)
    assert response.status_code == 200, response.text
    sent = dict(served.upstream.bodies[-1])
    assert sent.pop("request_id")
    return response, json.dumps(sent).encode()


def count(served: Served, label: str) -> float | None:
    registry = served.gateway.metrics.registry
    return registry.get_sample_value("preforch_ignored_fields_total", {"field": label})


def test_the_engine_gets_the_same_bytes_with_and_without_each_ignored_field(served: Served) -> None:
    plain, expected = engine_bytes(served, "/v1/chat/completions", AGENT)
    assert HEADER not in plain.headers
    for name, (path, value) in EVERYWHERE.items():
        response, sent = engine_bytes(served, "/v1/chat/completions", with_field(path, value))
        assert (response.headers[HEADER], sent, response.content) == (name, expected, plain.content), name


def test_completions_drop_the_same_fields(served: Served) -> None:
    prompt = {"prompt": "once"}
    plain, expected = engine_bytes(served, "/v1/completions", prompt)
    fields: dict[str, object] = {"best_of": 1, "store": False, "metadata": {}, "made_up": "<W1>"}
    for name, value in fields.items():
        response, sent = engine_bytes(served, "/v1/completions", prompt | {name: value})
        assert (response.headers[HEADER], sent, response.content) == (name, expected, plain.content)


def test_messages_of_our_own_routes_drop_the_same_and_their_own_fields_stay_strict(served: Served) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hello", "cache_control": {}}], "agent": 1}
    ]
    for path in ("/weights", "/generate"):
        response = served.post(path, {"messages": messages})
        assert response.headers[HEADER] == "messages.agent, messages.content.cache_control"
        assert error_of(served.post(path, {"messages": messages, "store": True}), 400)["param"] == "store"
    assert served.recommender.texts == ["hello", "hello"]
    assert count(served, "messages.other") == count(served, "messages.content.cache_control") == 2


def test_names_that_users_choose_make_no_label_and_no_unsafe_header(served: Served) -> None:
    odd = {"a\r\nSet-Cookie: x=1": 1, "é,<W1>": 2, "k" * 5000: 3, "": 4}
    header = served.chat(**odd).headers[HEADER]
    assert header == f"a__Set-Cookie__x_1, ___W1_, {'k' * 48}..., _"
    many = served.chat(**{f"name_{i}": i for i in range(1000)}).headers[HEADER]
    assert many.endswith("name_18, name_19, ...")
    assert (count(served, "other"), count(served, "name_1")) == (2, None)


def test_known_fields_are_counted_by_name(served: Served) -> None:
    for body in (AGENT | {"store": True}, AGENT | {"store": False, "metadata": {}}):
        assert served.post("/v1/chat/completions", body).status_code == 200
    assert (count(served, "store"), count(served, "metadata")) == (2, 1)


def test_an_operator_may_have_them_refused(bundle: Bundle) -> None:
    for served in serve(bundle, upstream=FakeUpstream(any_answer), unknown_fields="reject"):
        assert served.post("/v1/chat/completions", AGENT).status_code == 200
        for name, (path, value) in EVERYWHERE.items():
            error = error_of(served.post("/v1/chat/completions", with_field(path, value)), 400)
            assert error["code"] == "field_not_allowed", name
            assert (error["param"] or "").rpartition(".")[2] == path[-1]
        assert len(served.upstream.bodies) == 1


def test_what_the_policy_cannot_read_is_refused_in_words(served: Served) -> None:
    parts = {"image_url": "images", "input_audio": "audio", "file": "files", "tool_reference": "served are"}
    for kind, word in parts.items():
        part = {"type": kind, kind: {}}
        messages = [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]
        for path in ("/v1/chat/completions", "/weights"):
            error = error_of(served.post(path, {"messages": messages}), 400)
            assert (error["param"], word in error["message"]) == ("messages[0].content[1].type", True)


def test_what_would_change_a_turn_is_refused(served: Served) -> None:
    for field in ("audio", "images", "prefix", "partial", "task"):
        turn: dict[str, object] = {"role": "assistant", "content": "x"}
        messages = [*HELLO["messages"], turn | {field: True}]
        assert error_of(served.chat(messages=messages), 400)["param"] == f"messages[1].{field}"
        assert HEADER not in served.chat(messages=[*HELLO["messages"], turn | {field: None}]).headers


def test_a_bias_may_be_positive_where_it_forces_no_control_token(served: Served) -> None:
    bodies: dict[str, dict[str, Any]] = {"/v1/chat/completions": HELLO, "/v1/completions": {"prompt": "x"}}
    for path, body in bodies.items():
        _, sent = engine_bytes(served, path, body | {"logit_bias": {"4": 50}})
        assert b'"logit_bias": {"4": 50}' in sent
        error = error_of(served.post(path, body | {"logit_bias": {"4": 50, "5": 1}}), 400)
        assert (error["param"], "control token" in error["message"]) == ("logit_bias.5", True)
