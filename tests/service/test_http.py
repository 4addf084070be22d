"""The HTTP surface, over a real port, with fakes behind it."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest
from fakes import (
    CHAT,
    RECOMMENDED,
    FakeAnswer,
    chunk,
    json_answer,
    make_gateway,
    running,
    stream_answer,
)
from preforch_models.bundle import Bundle
from served import DONE, HELLO, Served, error_of, serve

FULL = {"helpful": 0.7, "harmless": 0.2, "humor": 0.1}


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle)


def test_weights_of_a_prompt_and_of_a_conversation(served: Served) -> None:
    answer = served.post("/weights", {"prompt": "hello"}).json()
    assert answer["weights"] == answer["recommended"] == RECOMMENDED
    assert (answer["source"], answer["clamped"], answer["bundle"]) == (
        "orchestrator",
        {},
        served.bundle.revision,
    )
    assert answer["confidence"] == served.recommender.confidence
    messages = [{"role": "system", "content": "be nice"}, {"role": "user", "content": "hello"}]
    assert served.post("/weights", {"messages": messages}).status_code == 200
    assert served.recommender.texts == ["hello", "hello\nsystem: be nice"]


def test_weights_of_many_inputs(served: Served) -> None:
    answer = served.post("/weights", {"inputs": ["one", HELLO["messages"]]}).json()
    assert [result["source"] for result in answer["results"]] == ["orchestrator"] * 2
    assert answer["bundle"] == served.bundle.revision
    assert error_of(served.post("/weights", {"inputs": ["x"] * 257}), 400)["param"] == "inputs"
    assert error_of(served.post("/weights", {"inputs": []}), 400)["param"] == "inputs"
    assert (
        "exactly one" in error_of(served.post("/weights", {"prompt": "a", "inputs": ["b"]}), 400)["message"]
    )
    assert error_of(served.post("/weights", {"prompt": "a", "extra": 1}), 400)["param"] == "extra"
    assert error_of(served.post("/weights", {"messages": []}), 400)["param"] == "messages"


def test_objectives(served: Served) -> None:
    answer = served.client.get("/objectives").json()
    assert [o["name"] for o in answer["objectives"]] == ["helpful", "harmless", "humor"]
    assert answer["objectives"][1]["bounds"] == [0.1, 1.0]
    assert sum(answer["fallback"].values()) == pytest.approx(1)


def test_a_chat_sends_the_weights_to_the_template_and_says_what_was_used(served: Served) -> None:
    response = served.chat(temperature=0.5)
    preference = response.json().pop("preference")
    assert preference == {
        "weights": RECOMMENDED,
        "source": "orchestrator",
        "recommended": RECOMMENDED,
        "clamped": {},
        "bundle": served.bundle.revision,
        "applied": True,
    }
    assert "X-Preference-Applied" not in response.headers
    assert response.headers["X-Preference-Weights"] == "helpful=0.50,harmless=0.30,humor=0.20"
    assert response.headers["X-Preference-Source"] == "orchestrator"
    assert response.headers["X-Preference-Bundle"] == served.bundle.revision
    (body,) = served.upstream.bodies
    assert body.pop("request_id").startswith(response.headers["X-Request-Id"])
    assert body == HELLO | {
        "path": "/v1/chat/completions",
        "model": "tiny",
        "temperature": 0.5,
        "chat_template_kwargs": {"weights": RECOMMENDED},
    }


def test_the_body_passes_unchanged_but_for_the_preference(served: Served) -> None:
    raw = json.dumps(CHAT, indent=3).encode() + b"\n"
    served.upstream.answer = lambda body: FakeAnswer([raw[:20], raw[20:]])
    content = served.chat().content
    assert content.startswith(raw[:-2] + b',"preference":{')
    assert content.endswith(b"}\n")


def test_the_models_are_the_engines_without_the_path_of_the_policy(served: Served) -> None:
    model = {"id": "tiny", "root": "tiny", "max_model_len": 256}
    model |= {"preference": {"conditioning": "context", "applied": True}}
    assert served.client.get("/v1/models").json() == {"object": "list", "data": [model]}
    assert served.client.get("/v1/models/tiny").json() == model
    for unknown in ("other", "org/other", "other@helpful=1"):
        error = error_of(served.client.get(f"/v1/models/{unknown}"), 404)
        assert (error["param"], error["code"]) == ("model", "model_not_found")
        assert f"{unknown!r} does not exist; served is 'tiny'" in error["message"]


@pytest.mark.parametrize(
    "alias", ["helpful=0.7,harmless=0.3,humor=0", "humor=0.5", "humor=1.5", "kind=1", "wild"]
)
def test_a_model_under_weights_is_there_where_a_request_may_name_it(served: Served, alias: str) -> None:
    name = f"tiny@{alias}"
    plain, found = (served.client.get(f"/v1/models/{model}") for model in ("tiny", name))
    asked = served.chat(model=name)
    if asked.status_code == 200:
        assert found.json() == plain.json() | {"id": name}
        quoted = name.replace("@", "%40").replace("=", "%3D").replace(",", "%2C")
        assert served.client.get(f"/v1/models/{quoted}").json() == found.json()
    else:
        error = error_of(found, 404)
        assert (error["param"], error["code"]) == ("model", "model_not_found")
        assert asked.json()["error"]["message"] in error["message"]
    assert (asked.status_code == 200) == (alias in ("helpful=0.7,harmless=0.3,humor=0", "humor=0.5"))


@pytest.mark.parametrize("carrier", ["body", "list", "header", "alias"])
def test_full_weights_take_precedence_without_asking_the_orchestrator(served: Served, carrier: str) -> None:
    text = "helpful=7,harmless=2,humor=1"
    headers = {"X-Preference-Weights": text} if carrier == "header" else {}
    fields: dict[str, dict[str, object]] = {
        "body": {"preference_weights": FULL},
        "list": {"preference_weights": [7, 2, 1]},
        "alias": {"model": f"tiny@{text}"},
    }
    response = served.post("/v1/chat/completions", HELLO | fields.get(carrier, {}), headers=headers)
    preference = response.json()["preference"]
    assert (preference["weights"], preference["source"], preference["recommended"]) == (FULL, "user", None)
    assert served.recommender.texts == []
    assert "preference_weights" not in served.upstream.bodies[0]
    assert served.upstream.bodies[0]["model"] == "tiny"


def test_partial_weights_are_pinned_and_the_rest_is_shared(served: Served) -> None:
    preference = served.chat(preference_weights={"humor": 0.6}).json()["preference"]
    assert preference["source"] == "blended"
    assert preference["weights"] == {"helpful": 0.25, "harmless": 0.15, "humor": 0.6}
    assert preference["recommended"] == RECOMMENDED


def test_bounds_hold_and_are_reported(served: Served) -> None:
    preference = served.chat(preference_weights={"helpful": 1, "harmless": 0, "humor": 0}).json()[
        "preference"
    ]
    assert preference["clamped"] == {"harmless": {"low": 0.1}}
    assert preference["weights"]["harmless"] == 0.1


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"kind": 1}, "unknown objective"),
        ([0.5, 0.5], "list of weights needs 3"),
        ({"helpful": -1}, "finite number >= 0"),
        ({"helpful": float("nan")}, "finite number >= 0"),
        ({"helpful": float("inf")}, "finite number >= 0"),
        ({"helpful": 10**400}, "finite number >= 0"),
        ({"helpful": True}, "must be a number"),
        ({"helpful": 0, "harmless": 0, "humor": 0}, "all zero"),
        ({"helpful": 0.8, "humor": 0.8}, "sum to at most 1"),
        ({}, "empty"),
        (3, "must be an object or a list"),
        ("x", "written name=number"),
    ],
)
def test_wrong_weights_are_a_400_naming_the_field(served: Served, weights: object, reason: str) -> None:
    content = json.dumps(HELLO | {"preference_weights": weights})
    headers = {"content-type": "application/json"}
    error = error_of(served.client.post("/v1/chat/completions", content=content, headers=headers), 400)
    assert error["param"] == "preference_weights"
    assert reason in error["message"]
    assert served.upstream.bodies == []


def test_wrong_weights_in_the_other_carriers_name_them(served: Served) -> None:
    assert error_of(served.chat(model="tiny@kind=1"), 400)["param"] == "model"
    response = served.post("/v1/chat/completions", headers={"X-Preference-Weights": "helpful"})
    assert error_of(response, 400)["param"] == "X-Preference-Weights"
    assert (
        error_of(served.post("/generate", {"prompt": "a", "weights": {"kind": 1}}), 400)["param"] == "weights"
    )
    error = error_of(served.post("/generate", {"prompt": "a", "weights": "x"}), 400)
    assert (error["param"], "must be an object or a list" in error["message"]) == ("weights", True)


def test_carriers_must_agree(served: Served) -> None:
    same = {"X-Preference-Weights": "helpful=70,harmless=20,humor=10"}
    assert (
        served.post("/v1/chat/completions", HELLO | {"preference_weights": FULL}, headers=same).status_code
        == 200
    )
    error = error_of(served.chat(preference_weights=FULL, model="tiny@helpful=1,harmless=1,humor=1"), 400)
    assert error["code"] == "conflicting_weights"


def test_unknown_models_are_a_404(served: Served) -> None:
    assert error_of(served.chat(model="gpt-5"), 404)["param"] == "model"
    assert error_of(served.chat(model=["tiny"]), 400)["param"] == "model"


@pytest.mark.parametrize(
    "field", ["chat_template", "request_id", "cache_salt", "kv_transfer_params", "guided_json"]
)
def test_fields_that_are_not_listed_are_refused(served: Served, field: str) -> None:
    assert error_of(served.chat(**{field: "x"}), 400)["param"] == field
    assert error_of(served.chat(chat_template_kwargs={"eos_token": "x"}), 400)["param"] == (
        "chat_template_kwargs.eos_token"
    )


def test_template_kwargs_that_the_operator_lists_pass_guarded(bundle: Bundle) -> None:
    for served in serve(bundle, template_kwargs=("style",)):
        assert served.chat(chat_template_kwargs={"style": {"a": "<W1>"}}).status_code == 200
        assert served.upstream.bodies[0]["chat_template_kwargs"] == {
            "style": {"a": "<\u2060W1>"},
            "weights": RECOMMENDED,
        }
        assert error_of(served.chat(chat_template_kwargs={"weights": {}}), 400)["param"]


def test_the_orchestrator_reads_the_original_and_the_engine_the_escaped_text(served: Served) -> None:
    assert served.post("/v1/completions", {"prompt": "a <W1> b", "max_tokens": 3}).status_code == 200
    (body,) = served.upstream.bodies
    assert body["prompt"] == "a <\u2060W1> b <W1> 0.50 <W2> 0.30 <W3> 0.20"
    assert served.recommender.texts == ["a <W1> b"]
    for wrong in ([], "", None, [1, 2]):
        assert error_of(served.post("/v1/completions", {"prompt": wrong}), 400)["param"] == "prompt"


def test_control_strings_are_rejected_on_demand(bundle: Bundle) -> None:
    for served in serve(bundle, control_tokens="reject"):
        error = error_of(served.chat(messages=[{"role": "user", "content": "x<|im_end|>"}]), 400)
        assert (error["param"], error["code"]) == ("messages[0].content", "control_string")


def test_a_stream_carries_the_preference_in_its_first_chunk_with_choices(served: Served) -> None:
    first, second = chunk("a"), chunk("b")
    usage = b'data: {"id": "chatcmpl-1", "choices": [], "usage": {}}\n\n'
    whole = b": ping\n\n" + usage + first + second + DONE
    served.upstream.answer = lambda body: stream_answer(whole[:70], whole[70:])
    response = served.chat(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    start, _, rest = response.content.partition(first[:-3])
    assert start == b": ping\n\n" + usage
    spliced, _, tail = rest.partition(b"}\n\n")
    assert tail == second + DONE
    assert json.loads(b"{" + spliced.removeprefix(b",") + b"}")["preference"]["weights"] == RECOMMENDED


def test_generate(served: Served) -> None:
    response = served.post("/generate", {"prompt": "hello", "weights": FULL, "max_tokens": 5, "stop": ["x"]})
    assert response.json() == {
        "text": "hello",
        "weights": FULL,
        "source": "user",
        "applied": True,
        "finish_reason": "stop",
        "usage": CHAT["usage"],
        "model": "tiny",
        "id": "chatcmpl-1",
    }
    (body,) = served.upstream.bodies
    assert (body["path"], body["max_tokens"], body["stop"]) == ("/v1/chat/completions", 5, ["x"])
    assert error_of(served.post("/generate", {"prompt": "x", "tools": []}), 400)["param"] == "tools"
    assert (
        error_of(served.post("/generate", {"prompt": "x", "max_tokens": "5"}), 400)["param"] == "max_tokens"
    )
    assert "exactly one" in error_of(served.post("/generate", {}), 400)["message"]


def test_generate_streams(served: Served) -> None:
    last = b'data: {"id": "chatcmpl-1", "model": "tiny", "choices": [], "usage": {"total_tokens": 2}}\n\n'
    served.upstream.answer = lambda body: stream_answer(chunk(""), chunk("a"), chunk("b"), last, DONE)
    content = served.post("/generate", {"prompt": "hello", "stream": True}).content
    *events, done, _ = content.split(b"\n\n")
    first, *rest = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert (first["weights"], first["source"]) == (RECOMMENDED, "orchestrator")
    assert [event["text"] for event in (first, *rest)] == ["", "a", "b", ""]
    assert rest[-1]["usage"] == {"total_tokens": 2}
    assert done + b"\n\n" == DONE


def test_errors_have_openais_shape_everywhere(served: Served) -> None:
    client = served.client
    error_of(client.get("/nothing"), 404)
    response = client.get("/weights")
    error_of(response, 405)
    assert response.headers["allow"] == "OPTIONS, POST"
    error_of(client.post("/weights", content="{}", headers={"content-type": "text/plain"}), 415)
    error_of(client.post("/weights", content="{}"), 415)
    for content in ("", "{", "[]", "[" * 5000, '{"prompt": "\udcff"}'.encode("utf-8", "surrogateescape")):
        response = client.post("/weights", content=content, headers={"content-type": "application/json"})
        assert error_of(response, 400)["code"] == "invalid_json"
    infinite = '{"prompt": "x", "temperature": 1e999}'
    error_of(
        client.post("/v1/completions", content=infinite, headers={"content-type": "application/json"}), 400
    )


@pytest.mark.parametrize("path", ["/weights", "/generate", "/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    "content",
    [
        b'{"prompt": "\\ud800"}',
        b'{"foo\\ud800": 1}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": {"a": ["\\udfff"]}}',
    ],
)
def test_lone_surrogates_are_refused_everywhere(served: Served, path: str, content: bytes) -> None:
    response = served.client.post(path, content=content, headers={"content-type": "application/json"})
    error = error_of(response, 400)
    assert (error["code"], "lone surrogate" in error["message"]) == ("invalid_json", True)
    assert served.recommender.texts == []


def test_a_pair_of_surrogates_is_text(served: Served) -> None:
    content = b'{"prompt": "\\ud83d\\ude00"}'
    served.client.post("/weights", content=content, headers={"content-type": "application/json"})
    assert served.recommender.texts == ["\U0001f600"]


@pytest.mark.parametrize("path", ["/weights", "/generate", "/v1/chat/completions", "/v1/completions"])
def test_nesting_at_any_depth_is_never_a_500(served: Served, path: str) -> None:
    bodies = (
        '{"foo": X}',
        '{"prompt": "x", "weights": X}',
        '{"messages": [{"role": X}]}',
        '{"messages": [{"role": "user", "content": "x"}], "tools": X}',
    )
    for depth in (300, 900, *range(930, 1000, 10), 5000):
        nested = "[" * depth + "]" * depth
        for body in bodies:
            content = body.replace("X", nested)
            response = served.client.post(path, content=content, headers={"content-type": "application/json"})
            assert response.status_code in (200, 400), (depth, body, response.text)
    assert "nested too deeply" in error_of(response, 400)["message"]


def test_an_unexpected_failure_is_a_500_that_tells_nothing(served: Served) -> None:
    served.upstream.answer = lambda body: json_answer([])
    error = error_of(served.chat(), 500)
    assert error["message"] == "internal error"


def test_bodies_over_the_limit_are_a_413(bundle: Bundle) -> None:
    for served in serve(bundle, max_body_bytes=2000):
        error_of(served.post("/weights", {"prompt": "x" * 3000}), 413)
        assert served.post("/weights", {"prompt": "x" * 1000}).status_code == 200


def test_only_known_hosts_are_answered(bundle: Bundle) -> None:
    for served in serve(bundle, allowed_hosts=("pro.example",)):
        for host in ("localhost", "127.0.0.1:80", "[::1]:8000", "pro.example:443", "PRO.example"):
            assert served.client.get("/objectives", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil:80"):
            response = served.client.get("/objectives", headers={"Host": host})
            assert error_of(response, 400)["code"] == "host_not_allowed"
        assert served.client.get("/livez", headers={"Host": "10.0.0.1"}).status_code == 200


def test_request_ids_are_kept_or_made(served: Served) -> None:
    assert served.client.get("/livez", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    made = served.client.get("/nothing", headers={"X-Request-Id": "no spaces"}).headers["X-Request-Id"]
    assert len(made) == 32


def test_docs_and_openapi_describe_the_routes(served: Served) -> None:
    assert served.client.get("/docs").status_code == 200
    schema = served.client.get("/openapi.json").json()
    assert {"/weights", "/generate", "/objectives", "/v1/chat/completions", "/readyz"} <= set(schema["paths"])
    body = schema["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    component = body["$ref"].rpartition("/")[2]
    assert "max_tokens" in schema["components"]["schemas"][component]["properties"]


def test_metrics_count_requests_by_route_and_decisions_by_source(served: Served) -> None:
    served.chat()
    served.client.get("/made/up")
    registry = served.gateway.metrics.registry
    labels = {"route": "/v1/chat/completions", "status": "200"}
    deadline = time.monotonic() + 5
    while not registry.get_sample_value("preforch_requests_total", labels) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert registry.get_sample_value("preforch_requests_total", labels) == 1
    assert registry.get_sample_value("preforch_requests_total", {"route": "other", "status": "404"}) == 1
    assert registry.get_sample_value("preforch_decisions_total", {"source": "orchestrator"}) == 1


def test_a_gateway_of_weights_only_has_no_language_routes(bundle: Bundle) -> None:
    with running(make_gateway(bundle)) as url:
        assert httpx.post(f"{url}/weights", json={"prompt": "x"}).status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 200
        error_of(httpx.post(f"{url}/generate", json={"prompt": "x"}), 404)
