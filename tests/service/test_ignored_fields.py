"""What clients send beyond what the engine reads: dropped, counted and named, or refused in words."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from conversations import CLAUDE_CODE, CODEX, Body
from fakes import FakeUpstream, any_answer
from preforch_models.bundle import Bundle
from preforch_service.requests.anthropic.request import COUNT_TOKENS, MESSAGES
from preforch_service.requests.formats import RequestFormat
from preforch_service.requests.ignored import IGNORED
from preforch_service.requests.responses.request import RESPONSES
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
Path = tuple[str | int, ...]
EVERYWHERE: dict[str, tuple[Path, object]] = {
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


def with_field(path: Path, value: object, agent: Body = AGENT) -> Body:
    body = deepcopy(agent)
    inside: Any = body
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    return body


def bare(value: Any) -> Any:
    """An agent's request without what is ignored."""
    if isinstance(value, list):
        return [bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    # Of reasoning the summary is read; `data` is what another provider has encrypted.
    dropped = IGNORED - {"summary"} | {"data"}
    return {name: bare(item) for name, item in value.items() if name not in dropped}


CODER: Body = bare(CODEX) | {
    "tool_choice": {"type": "function", "name": "shell"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    "reasoning": {"effort": "medium"},
    "include": ["message.output_text.logprobs"],
}
CLAUDE: Body = bare(CLAUDE_CODE) | {
    "system": [{"type": "text", "text": "You are Claude Code."}],
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "thinking": {"type": "disabled"},
}
COUNTED: Body = {name: value for name, value in CLAUDE.items() if name in COUNT_TOKENS.forwarded}
FORMATS: dict[str, tuple[RequestFormat, Body]] = {
    "/v1/responses": (RESPONSES, CODER),
    "/v1/messages": (MESSAGES, CLAUDE),
    "/v1/messages/count_tokens": (COUNT_TOKENS, COUNTED),
}
"""What an agent sends in each format, with an object in every place that may hold one."""
Place = tuple[str, Path, object]
"""A name in the header, where a field stands in the agent's request, and a value."""
OF_RESPONSES: list[Place] = [
    ("stream_options", ("stream_options",), {"include_obfuscation": False}),
    ("include.reasoning_encrypted_content", ("include",), [*CODER["include"], "reasoning.encrypted_content"]),
    ("text.verbosity", ("text", "verbosity"), "low"),
    ("reasoning.summary", ("reasoning", "summary"), "auto"),
    ("reasoning.generate_summary", ("reasoning", "generate_summary"), "auto"),
    ("input.phase", ("input", 8, "phase"), "final_answer"),
    ("input.encrypted_content", ("input", 3, "encrypted_content"), "b3BhcXVl"),
    ("input.content.annotations", ("input", 8, "content", 0, "annotations"), [{"type": "url_citation"}]),
    ("tools.allowed_callers", ("tools", 0, "allowed_callers"), ["direct"]),
]
BILLED = {"type": "text", "text": "x-anthropic-billing-header: cch=1a2b3;"}
OF_MESSAGES: list[Place] = [
    ("system.x-anthropic-billing-header", ("system",), [BILLED, *CLAUDE["system"]]),
    ("messages.content.is_error", ("messages", 2, "content", 0, "is_error"), True),
    ("messages.content.citations", ("messages", 0, "content", 0, "citations"), [{"type": "x"}]),
    ("messages.content.data", ("messages", 1, "content", 1, "data"), "b3BhcXVl"),
    ("thinking.budget_tokens", ("thinking", "budget_tokens"), 1024),
    ("tools.eager_input_streaming", ("tools", 0, "eager_input_streaming"), True),
    ("tools.allowed_callers", ("tools", 0, "allowed_callers"), ["direct"]),
]
FREE = ("parameters", "input_schema", "schema", "input")
"""Objects under these names are the user's own."""


def objects(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where the objects of a request stand."""
    for step, inside in value.items() if isinstance(value, dict) else enumerate(value):
        free = isinstance(inside, dict) and step in FREE
        if isinstance(inside, dict) and not free:
            yield (*path, step)
        if isinstance(inside, dict | list) and not free:
            yield from objects(inside, (*path, step))


def ignored_in(route: str) -> list[Place]:
    """Every ignored field at the top of a request, `cache_control` of each object in it, and more."""
    form, agent = FORMATS[route]
    names = (IGNORED - form.forwarded - set(form.refused)) | {"nobody"}
    top = dict.fromkeys(sorted(names), "<W1>") | dict(form.changes_nothing)
    cached = [(*path, "cache_control") for path in objects(agent)]
    return [
        *((re.sub("[^a-zA-Z_-]", "_", name), (name,), value) for name, value in top.items()),
        *((".".join(step for step in path if isinstance(step, str)), path, {"ttl": "1h"}) for path in cached),
        *(OF_RESPONSES if form is RESPONSES else OF_MESSAGES),
    ]


@pytest.mark.parametrize("route", FORMATS)
def test_the_engine_gets_the_same_bytes_with_and_without_each_ignored_field_of_a_format(
    served: Served, route: str
) -> None:
    _, agent = FORMATS[route]
    plain, expected = engine_bytes(served, route, agent)
    assert HEADER not in plain.headers
    ignored = ignored_in(route)
    assert len(ignored) > 50
    for name, path, value in ignored:
        response, sent = engine_bytes(served, route, with_field(path, value, agent))
        assert (response.headers[HEADER], sent, response.content) == (name, expected, plain.content), path


def engine_bytes(served: Served, path: str, body: object) -> tuple[httpx.Response, bytes]:
    """The answer, and what the engine was sent, without the id that differs each time."""
    response = served.post(path, body)
    assert response.status_code == 200, response.text
    sent = dict(served.upstream.bodies[-1])
    sent.pop("request_id", None)  # of Messages a header has it
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
