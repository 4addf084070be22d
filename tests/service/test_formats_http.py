"""Responses and Messages over a real port: fakes behind the gateway, the formats' own clients before it."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from conversations import CLAUDE_CODE, CODEX, Body
from fakes import (
    ANSWERS,
    NO_PARSER,
    RECOMMENDED,
    STREAMS,
    FakeAnswer,
    FakeUpstream,
    any_answer,
    json_answer,
    stream_answer,
)
from preforch_models.bundle import Bundle
from preforch_service.engine.upstream import UpstreamDown
from preforch_service.keys import Keys, digest_of
from served import Served, anthropic_error, error_of, serve

RESPONSES, MESSAGES, COUNT = "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"
FULL = {"helpful": 0.7, "harmless": 0.2, "humor": 0.1}
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
BODIES: dict[str, Body] = {
    RESPONSES: {"input": HELLO},
    MESSAGES: {"messages": HELLO, "max_tokens": 5},
    COUNT: {"messages": HELLO},
}
KEY, SELDOM, ELSEWHERE = "data-key-0123456789", "seldom-0123456789", "elsewhere-0123456789"
KEYS = Keys.model_validate(
    {
        "keys": [
            {"name": "data", "sha256": digest_of(KEY), "cache_salt": "salt"},
            {"name": "seldom", "sha256": digest_of(SELDOM), "requests_per_minute": 1},
            {"name": "elsewhere", "sha256": digest_of(ELSEWHERE), "models": []},
        ]
    }
)


PRESETS = {"safe": {"harmless": 0.8}}
SAFE = {"helpful": 0.14, "harmless": 0.8, "humor": 0.06}
IGNORED = "X-Preference-Ignored"


@pytest.fixture(scope="module")
def running_gateway(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle, upstream=FakeUpstream(any_answer), presets=PRESETS)


@pytest.fixture(scope="module")
def running_guarded(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle, upstream=FakeUpstream(any_answer), keys=KEYS, max_body_bytes=2000)


def fresh(served: Served) -> Served:
    """The gateway of the module, as if it had just been started."""
    served.upstream.answer, served.upstream.down = any_answer, False
    served.upstream.bodies, served.upstream.headers = [], []
    served.recommender.texts.clear()
    assert asyncio.run(served.gateway.readiness.check())
    return served


@pytest.fixture
def served(running_gateway: Served) -> Served:
    return fresh(running_gateway)


@pytest.fixture
def guarded(running_guarded: Served) -> Served:
    return fresh(running_guarded)


def openais(served: Served, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{str(served.client.base_url).rstrip('/')}/v1", api_key=key, max_retries=0)


def anthropics(served: Served, key: str = "none") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=str(served.client.base_url), api_key=key, max_retries=0)


def extra(value: Any) -> Body:
    """What a client's object holds beside the fields that the client knows."""
    found: Body = value.model_extra
    return found


def test_responses_reach_the_engine_with_weights_and_are_stored_nowhere(served: Served) -> None:
    with openais(served) as client:
        raw = client.responses.with_raw_response.create(
            model="tiny", input="hello", store=True, metadata={"a": "b"}, max_output_tokens=5
        )
    assert extra(raw.parse())["preference"]["weights"] == RECOMMENDED
    assert raw.headers["X-Preference-Source"] == "orchestrator"
    (body,) = served.upstream.bodies
    assert body.pop("request_id").startswith(f"resp_{raw.headers['X-Request-Id']}-")
    assert body == {
        "path": RESPONSES,
        "model": "tiny",
        "input": "hello",
        "max_output_tokens": 5,
        "store": False,
        "chat_template_kwargs": {"weights": RECOMMENDED},
    }


def test_messages_reach_the_engine_with_weights(guarded: Served) -> None:
    with anthropics(guarded, KEY) as client:
        raw = client.messages.with_raw_response.create(
            model="tiny", messages=HELLO, max_tokens=5, metadata={"user_id": "u"}
        )
        counted = client.messages.count_tokens(model="tiny", messages=HELLO)
    assert extra(raw.parse())["preference"]["weights"] == RECOMMENDED
    assert counted.input_tokens == 3
    body, count = guarded.upstream.bodies
    assert body == {
        "path": MESSAGES,
        "model": "tiny",
        "messages": HELLO,
        "max_tokens": 5,
        "cache_salt": "salt",
        "chat_template_kwargs": {"weights": RECOMMENDED},
    }
    assert count == {name: body[name] for name in body if name not in ("cache_salt", "max_tokens")} | {
        "path": COUNT
    }
    assert guarded.upstream.headers[0]["X-Request-Id"].startswith(raw.headers["X-Request-Id"])


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("carrier", ["body", "header", "alias"])
def test_weights_of_a_user_take_precedence(served: Served, path: str, carrier: str) -> None:
    text = "helpful=7,harmless=2,humor=1"
    headers = {"X-Preference-Weights": text} if carrier == "header" else {}
    fields: dict[str, Body] = {"body": {"preference_weights": FULL}, "alias": {"model": f"tiny@{text}"}}
    answer = served.post(path, BODIES[path] | fields.get(carrier, {}), headers=headers)
    assert list(answer.json())[-1] == "preference"
    assert answer.json()["preference"]["weights"] == FULL
    (body,) = served.upstream.bodies
    assert (body["chat_template_kwargs"], body["model"]) == ({"weights": FULL}, "tiny")
    assert "preference_weights" not in body


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("carrier", ["body", "header", "alias"])
def test_a_preset_is_chosen_by_body_header_or_alias(served: Served, path: str, carrier: str) -> None:
    headers = {"X-Preference-Preset": "safe"} if carrier == "header" else {}
    fields: dict[str, Body] = {"body": {"preference_preset": "safe"}, "alias": {"model": "tiny@safe"}}
    answer = served.post(path, BODIES[path] | fields.get(carrier, {}), headers=headers)
    assert (answer.json()["preference"]["weights"], answer.headers["X-Preference-Preset"]) == (SAFE, "safe")
    (body,) = served.upstream.bodies
    assert (body["chat_template_kwargs"], body["model"]) == ({"weights": SAFE}, "tiny")
    assert "preference_preset" not in body
    conflict = served.post(
        path, BODIES[path] | {"preference_preset": "wild"}, headers={"X-Preference-Preset": "safe"}
    )
    assert conflict.status_code == 400


def test_the_orchestrator_reads_what_it_reads_of_the_same_chat(served: Served) -> None:
    chat = [{"role": "system", "content": "be nice"}, *HELLO, {"role": "assistant", "content": "hi"}, *HELLO]
    served.post("/v1/chat/completions", {"messages": chat})
    served.post(RESPONSES, {"instructions": "be nice", "input": chat[1:]})
    served.post(MESSAGES, {"system": "be nice", "messages": chat[1:], "max_tokens": 5})
    assert len(served.recommender.texts) == 3
    assert len(set(served.recommender.texts)) == 1


def test_a_stream_of_responses_says_the_weights_when_it_begins(served: Served) -> None:
    with openais(served) as client, client.responses.create(model="tiny", input="x", stream=True) as stream:
        events: list[Any] = list(stream)
    assert [event.type for event in events] == [
        "response.created",
        "response.output_text.delta",
        "response.completed",
    ]
    assert extra(events[0].response)["preference"]["weights"] == RECOMMENDED
    with openais(served) as client, client.responses.stream(model="tiny", input="x") as helper:
        assert next(event.type for event in helper) == "response.created"
        assert helper.get_final_response().output_text == "hello"


def test_a_stream_of_messages_says_the_weights_when_it_begins(served: Served) -> None:
    asked: Any = {"model": "tiny", "messages": HELLO, "max_tokens": 5}
    with anthropics(served) as client:
        with client.messages.create(**asked, stream=True) as stream:
            first: Any = next(iter(stream))
        assert extra(first.message)["preference"]["weights"] == RECOMMENDED
        with client.messages.stream(**asked) as helper:
            final = helper.get_final_message()
    assert extra(final)["preference"]["weights"] == RECOMMENDED
    assert final.content[0].model_dump()["text"] == "hello"


@pytest.mark.parametrize(("path", "inside"), [(RESPONSES, "response"), (MESSAGES, "message")])
def test_the_events_pass_unchanged_but_for_the_preference(served: Served, path: str, inside: str) -> None:
    raw = b"".join(STREAMS[path])
    cuts = range(0, len(raw), 7)
    served.upstream.answer = lambda body: stream_answer(*(raw[i : i + 7] for i in cuts))
    content = served.post(path, BODIES[path] | {"stream": True}).content
    first = json.loads(content.split(b"\ndata: ", 1)[1].partition(b"\n\n")[0])
    preference = first[inside]["preference"]
    assert list(first[inside])[-1] == "preference"
    added = b"," + json.dumps({"preference": preference}, separators=(",", ":")).encode()[1:-1]
    assert content.replace(added, b"", 1) == raw


@pytest.mark.parametrize("body", [CODEX, CLAUDE_CODE], ids=["Codex", "Claude Code"])
def test_ignored_fields_change_nothing(served: Served, body: Body) -> None:
    path = RESPONSES if "input" in body else MESSAGES
    more = {"service_tier": "auto", "metadata": {"a": "b"}, "prompt_cache_key": "x", "store": True}
    ignored = more if path == RESPONSES else {"metadata": {"user_id": "x"}, "cache_control": {"type": "x"}}
    with_them, without = (served.post(path, body | fields) for fields in (ignored, {}))
    assert with_them.content == without.content
    named, usual = (set(answer.headers[IGNORED].split(", ")) for answer in (with_them, without))
    assert named - usual == set(ignored) - set(body)
    registry = served.gateway.metrics.registry
    label = {"field": "service_tier" if path == RESPONSES else "context_management"}
    assert registry.get_sample_value("preforch_ignored_fields_total", label) == (
        1 if path == RESPONSES else 2
    )
    bodies = [{k: v for k, v in sent.items() if k != "request_id"} for sent in served.upstream.bodies]
    assert bodies[0] == bodies[1]


def test_an_operator_may_have_them_refused(bundle: Bundle) -> None:
    for served in serve(bundle, upstream=FakeUpstream(any_answer), unknown_fields="reject"):
        for path in BODIES:
            answer = served.post(path, BODIES[path])
            assert (answer.status_code, IGNORED in answer.headers) == (200, False)
            refused = served.post(path, BODIES[path] | {"metadata": {}})
            assert (refused.status_code, "'metadata' is not allowed" in refused.text) == (400, True)


def test_a_bias_may_be_positive_where_it_forces_no_control_token(served: Served) -> None:
    assert served.post(RESPONSES, BODIES[RESPONSES] | {"logit_bias": {"4": 50}}).status_code == 200
    assert served.upstream.bodies[-1]["logit_bias"] == {"4": 50}
    error = error_of(served.post(RESPONSES, BODIES[RESPONSES] | {"logit_bias": {"5": 1}}), 400)
    assert (error["param"], "control token" in error["message"]) == ("logit_bias.5", True)


def broken(body: Body) -> FakeAnswer:
    raise RuntimeError("secret")


@pytest.mark.parametrize(
    ("status", "kind", "options", "key"),
    [
        (400, "invalid_request_error", {"json": {"messages": [], "max_tokens": 5}}, KEY),
        (401, "authentication_error", {"json": BODIES[MESSAGES]}, "wrong"),
        (403, "permission_error", {"json": BODIES[MESSAGES]}, ELSEWHERE),
        (404, "not_found_error", {"json": BODIES[MESSAGES] | {"model": "other"}}, KEY),
        (413, "request_too_large", {"json": {"messages": "x" * 3000}}, KEY),
        (415, "invalid_request_error", {"content": b"{}"}, KEY),
        (429, "rate_limit_error", {"json": BODIES[MESSAGES]}, SELDOM),
        (500, "api_error", {"json": BODIES[MESSAGES]}, KEY),
        (503, "overloaded_error", {"json": BODIES[MESSAGES]}, KEY),
    ],
)
@pytest.mark.parametrize("path", [MESSAGES, COUNT])
def test_errors_of_messages_have_anthropics_shape(
    guarded: Served, path: str, status: int, kind: str, options: dict[str, Any], key: str
) -> None:
    options = options | {"headers": {"X-API-Key": key, "Content-Type": "application/json"}}
    if status == 415:
        options["headers"]["Content-Type"] = "text/plain"
    if status == 429:
        guarded.client.post(path, **options)
    guarded.upstream.answer = broken if status == 500 else any_answer
    guarded.upstream.down = status == 503
    response = guarded.client.post(path, **options)
    error = anthropic_error(response, status)
    assert error["type"] == kind
    assert "secret" not in response.text
    needed = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
    assert needed.get(status, "X-Request-Id") in response.headers


def test_errors_of_the_router_have_the_shape_of_their_path(served: Served) -> None:
    anthropic_error(served.client.get(MESSAGES), 405)
    anthropic_error(served.client.get(f"{MESSAGES}/batches"), 404)
    error_of(served.client.get(RESPONSES), 405)
    error_of(served.client.get(f"{RESPONSES}/resp_1"), 404)
    error_of(served.client.get("/v1/messages_of_another_kind"), 404)


@pytest.mark.parametrize(
    "content",
    [
        {"type": "error", "error": {"type": "BadRequestError", "message": "too long"}},
        {"error": {"message": "too long", "type": "Bad Request", "param": None, "code": 400}},
        {"detail": "too long"},
    ],
)
def test_errors_of_the_engine_come_out_in_the_shape_of_the_format(served: Served, content: Body) -> None:
    served.upstream.answer = lambda body: json_answer(content, 400)
    error = anthropic_error(served.post(MESSAGES, BODIES[MESSAGES]), 400)
    assert error == {"type": "invalid_request_error", "message": "too long"}
    assert error_of(served.post(RESPONSES, BODIES[RESPONSES]), 400)["message"] == "too long"
    with anthropics(served) as client, pytest.raises(anthropic.BadRequestError, match="too long"):
        client.messages.create(model="tiny", messages=HELLO, max_tokens=5)


def test_a_tool_choice_without_a_parser_is_refused_in_the_same_words(served: Served) -> None:
    served.upstream.answer = lambda body: json_answer(NO_PARSER, 400)
    error = error_of(served.post(RESPONSES, BODIES[RESPONSES]), 400)
    assert (error["param"], error["code"]) == ("tool_choice", "no_tool_parser")
    assert anthropic_error(served.post(MESSAGES, BODIES[MESSAGES]), 400)["message"] == error["message"]
    assert served.chat().json()["error"] == error


TOOL: Body = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def test_responses_whose_calls_no_engine_reads_are_refused_by_the_gateway_itself(bundle: Bundle) -> None:
    """vLLM would give the call out as the text that the policy wrote."""
    for served in serve(bundle, upstream=FakeUpstream(any_answer, parses_calls=False)):
        for choice in (None, "auto", "required", {"type": "function", "name": "f"}):
            body = BODIES[RESPONSES] | {"tools": [TOOL], "tool_choice": choice}
            error = error_of(served.post(RESPONSES, body), 400)
            assert (error["param"], error["code"]) == ("tool_choice", "no_tool_parser")
        assert served.chat(tools=[{"type": "function", "function": TOOL}]).json()["error"] == error
        assert served.upstream.bodies == []
        harmless: list[Body] = [{"tools": [TOOL], "tool_choice": "none"}, {"tools": []}, {}]
        for fields in harmless:
            assert served.post(RESPONSES, BODIES[RESPONSES] | fields).status_code == 200
        assert served.post(MESSAGES, BODIES[MESSAGES]).status_code == 200
        # It comes up with a parser.
        served.upstream.down, served.upstream.parses_calls = True, True
        assert served.post(RESPONSES, BODIES[RESPONSES]).status_code == 503
        served.upstream.down = False
        assert asyncio.run(served.gateway.readiness.check())
        assert served.post(RESPONSES, BODIES[RESPONSES] | {"tools": [TOOL]}).status_code == 200


def test_a_message_of_anthropics_error_names_the_field(served: Served) -> None:
    body = BODIES[MESSAGES] | {"messages": [{"role": "critic", "content": "x"}]}
    message = anthropic_error(served.post(MESSAGES, body), 400)["message"]
    assert message.startswith("messages[0].role: role 'critic' is not allowed")


def test_streams_that_break_off_end_with_an_error_that_the_clients_raise(served: Served) -> None:
    def breaks(body: Body) -> FakeAnswer:
        return stream_answer(*STREAMS[body["path"]][:2], UpstreamDown("gone", reason="broken"))

    def ended(path: str) -> tuple[bytes, Body]:
        # The answer before has put the engine down.
        assert asyncio.run(served.gateway.readiness.check())
        *_, last, nothing = served.post(path, BODIES[path] | {"stream": True}).content.split(b"\n\n")
        name, _, data = last.partition(b"\ndata: ")
        assert nothing == b""
        return name, json.loads(data)

    served.upstream.answer = breaks
    name, found = ended(RESPONSES)
    assert (name, found["type"], found["sequence_number"]) == (b"event: error", "error", 2)
    assert found["code"] == found["error"]["code"] == "engine_down"
    name, found = ended(MESSAGES)
    assert (name, found["error"]["type"]) == (b"event: error", "overloaded_error")
    assert asyncio.run(served.gateway.readiness.check())
    with openais(served) as client, pytest.raises(openai.APIError, match="engine died"):
        list(client.responses.create(model="tiny", input="x", stream=True))
    assert asyncio.run(served.gateway.readiness.check())
    with anthropics(served) as other, pytest.raises(anthropic.APIError, match="engine died"):
        list(other.messages.create(model="tiny", messages=HELLO, max_tokens=5, stream=True))


def test_answers_are_bounded(bundle: Bundle) -> None:
    for served in serve(bundle, upstream=FakeUpstream(any_answer), max_tokens=7, max_messages=3, max_stop=1):
        for path, name in ((RESPONSES, "max_output_tokens"), (MESSAGES, "max_tokens")):
            body = {key: value for key, value in BODIES[path].items() if key != name}
            assert served.post(path, body).status_code == 200
            assert served.upstream.bodies[-1][name] == 7
            assert name in served.post(path, body | {name: 8}).text
            assert served.post(path, body | {name: 8}).status_code == 400
        assert served.post(COUNT, BODIES[COUNT]).status_code == 200
        assert "max_tokens" not in served.upstream.bodies[-1]
        assert error_of(served.post(RESPONSES, {"input": HELLO * 4}), 400)["code"] == "limit_exceeded"
        more = BODIES[MESSAGES] | {"stop_sequences": ["a", "b"]}
        assert "stop_sequences" in anthropic_error(served.post(MESSAGES, more), 400)["message"]


def test_every_route_of_the_table_has_an_answer_of_the_fake_engine() -> None:
    assert {RESPONSES, MESSAGES, COUNT} <= set(ANSWERS)
