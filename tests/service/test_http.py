"""The HTTP surface, over a real port, with fakes behind it."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from operator import eq
from typing import Any

import httpx
import pytest
from fakes import (
    CHAT,
    RECOMMENDED,
    FakeAnswer,
    FakeRecommender,
    FakeUpstream,
    chunk,
    json_answer,
    make_gateway,
    running,
    stream_answer,
)
from preforch_models.bundle import Bundle
from preforch_service.recommender import QueueFull
from preforch_service.upstream import UpstreamDown, UpstreamLate
from processes import wait_until

FULL = {"helpful": 0.7, "harmless": 0.2, "humor": 0.1}
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
DONE = b"data: [DONE]\n\n"


class Served:
    """A gateway with its fakes and a client."""

    def __init__(self, bundle: Bundle, **settings: object) -> None:
        self.upstream = FakeUpstream()
        self.recommender = FakeRecommender()
        self.bundle = bundle
        self.gateway = make_gateway(bundle, recommender=self.recommender, upstream=self.upstream, **settings)
        self.client = httpx.Client(timeout=10)

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        return self.client.post(path, json=HELLO if body is None else body, **options)

    def chat(self, **fields: object) -> httpx.Response:
        return self.post("/v1/chat/completions", HELLO | fields)


def serve(bundle: Bundle, **settings: object) -> Iterator[Served]:
    served = Served(bundle, **settings)
    with running(served.gateway) as url, served.client as client:
        client.base_url = httpx.URL(url)
        yield served


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle)


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, whose shape is OpenAI's."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_weights_of_a_prompt_and_of_a_conversation(served: Served) -> None:
    answer = served.post("/weights", {"prompt": "hello"}).json()
    assert answer["weights"] == answer["recommended"] == RECOMMENDED
    assert (answer["source"], answer["clamped"], answer["bundle"]) == ("orchestrator", False, served.bundle.revision)
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
    assert "exactly one" in error_of(served.post("/weights", {"prompt": "a", "inputs": ["b"]}), 400)["message"]
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
        "clamped": False,
        "bundle": served.bundle.revision,
    }
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
    models = {"object": "list", "data": [{"id": "tiny", "root": "tiny", "max_model_len": 256}]}
    assert served.client.get("/v1/models").json() == models


@pytest.mark.parametrize("carrier", ["body", "list", "header", "alias"])
def test_full_weights_are_obeyed_without_asking_the_orchestrator(served: Served, carrier: str) -> None:
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
    preference = served.chat(preference_weights={"helpful": 1, "harmless": 0, "humor": 0}).json()["preference"]
    assert preference["clamped"] is True
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
    assert error_of(served.post("/generate", {"prompt": "a", "weights": {"kind": 1}}), 400)["param"] == "weights"
    error = error_of(served.post("/generate", {"prompt": "a", "weights": "x"}), 400)
    assert (error["param"], "must be an object or a list" in error["message"]) == ("weights", True)


def test_carriers_must_agree(served: Served) -> None:
    same = {"X-Preference-Weights": "helpful=70,harmless=20,humor=10"}
    assert served.post("/v1/chat/completions", HELLO | {"preference_weights": FULL}, headers=same).status_code == 200
    error = error_of(served.chat(preference_weights=FULL, model="tiny@helpful=1,harmless=1,humor=1"), 400)
    assert error["code"] == "conflicting_weights"


def test_unknown_models_are_a_404(served: Served) -> None:
    assert error_of(served.chat(model="gpt-5"), 404)["param"] == "model"
    assert error_of(served.chat(model=["tiny"]), 400)["param"] == "model"


@pytest.mark.parametrize("field", ["chat_template", "request_id", "cache_salt", "kv_transfer_params", "made_up"])
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
    for wrong in (["a"], "", None, [1, 2]):
        assert error_of(served.post("/v1/completions", {"prompt": wrong}), 400)["param"] == "prompt"


def test_control_strings_are_rejected_on_demand(bundle: Bundle) -> None:
    for served in serve(bundle, control_tokens="reject"):
        error = error_of(served.chat(messages=[{"role": "user", "content": "x<|im_end|>"}]), 400)
        assert (error["param"], error["code"]) == ("messages[0].content", "control_string")


def test_a_late_or_broken_orchestrator_means_fallback_weights(bundle: Bundle) -> None:
    for served in serve(bundle, orchestrator_deadline=0.05):
        fallback = {"helpful": 0.5, "harmless": 0.33, "humor": 0.17}
        served.recommender.delay = 5
        late = served.chat().json()["preference"]
        assert (late["source"], late["reason"], late["recommended"]) == ("fallback", "late", None)
        assert late["weights"] == fallback
        served.recommender.delay, served.recommender.error = 0, RuntimeError("broken")
        broken = served.chat().json()["preference"]
        assert (broken["source"], broken["reason"], broken["weights"]) == ("fallback", "failed", fallback)
        served.recommender.error = QueueFull("256 requests wait")
        overloaded = served.chat().json()["preference"]
        assert (overloaded["source"], overloaded["reason"]) == ("fallback", "overloaded")
        served.recommender.error = RuntimeError("broken")
        pinned = served.chat(preference_weights={"humor": 0.5}).json()["preference"]
        assert (pinned["source"], pinned["weights"]["humor"]) == ("fallback", 0.5)
        weights = served.post("/weights", {"prompt": "x"}).json()
        assert (weights["source"], weights["reason"], weights["confidence"]) == ("fallback", "failed", None)


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


def test_a_stream_that_breaks_off_ends_with_an_error_event(served: Served) -> None:
    gone = UpstreamDown("gone", reason="broken")
    served.upstream.answer = lambda body: stream_answer(chunk("a"), b'data: {"half', gone)
    for path, body in (
        ("/v1/chat/completions", HELLO | {"stream": True}),
        ("/generate", {"prompt": "x", "stream": True}),
    ):
        # The answer before has put the engine down.
        assert asyncio.run(served.gateway.readiness.check())
        *_, error, done, nothing = served.post(path, body).content.split(b"\n\n")
        assert (done + b"\n\n", nothing) == (DONE, b"")
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "engine_down"


def test_errors_of_the_engine_pass_through(served: Served) -> None:
    wrong = {"error": {"message": "max_tokens", "type": "BadRequestError", "param": "max_tokens", "code": 400}}
    served.upstream.answer = lambda body: json_answer(wrong, status=400)
    for response in (served.chat(max_tokens=-1), served.post("/generate", {"prompt": "x", "max_tokens": -1})):
        assert (response.status_code, response.json()) == (400, wrong)


def test_a_dead_engine_is_a_503_until_it_is_back(served: Served) -> None:
    served.upstream.down = True
    response = served.chat()
    assert error_of(response, 503)["code"] == "engine_down"
    assert response.headers["Retry-After"]
    assert served.client.get("/readyz").status_code == 503
    assert served.post("/weights", {"prompt": "x"}).status_code == 200
    assert error_of(served.client.get("/v1/models"), 503)["code"] == "engine_down"


def test_an_engine_whose_core_has_died_is_a_503(served: Served) -> None:
    def dying(body: dict[str, Any]) -> FakeAnswer:
        served.upstream.health = 503
        return json_answer({"error": {"message": "EngineDeadError"}}, status=500)

    served.upstream.answer = dying
    assert error_of(served.chat(), 503)["code"] == "engine_down"


def test_an_engine_that_dies_while_answering_is_a_503(served: Served) -> None:
    served.upstream.answer = lambda body: FakeAnswer([b'{"id"', UpstreamDown("gone", reason="broken")])
    assert error_of(served.chat(), 503)["code"] == "engine_down"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_generation(served: Served, stream: bool) -> None:
    never = threading.Event()
    answer = stream_answer(chunk("a"), never) if stream else FakeAnswer([b"{", never])
    served.upstream.answer = lambda body: answer
    with pytest.raises(httpx.ReadTimeout):
        served.client.post("/v1/chat/completions", json=HELLO | {"stream": stream}, timeout=0.5)
    assert answer.closed.wait(5)
    assert not never.is_set()


def becomes(served: Served, value: float, metric: str, **labels: str) -> bool:
    """Whether a metric gets to a value in time."""
    registry = served.gateway.metrics.registry
    return wait_until(lambda: registry.get_sample_value(metric, labels) == value)


def test_a_client_that_leaves_before_its_weights_are_there_never_reaches_the_engine(served: Served) -> None:
    served.recommender.delay = 1.5
    with pytest.raises(httpx.ReadTimeout):
        served.client.post("/v1/chat/completions", json=HELLO, timeout=0.5)
    assert becomes(served, 1, "preforch_cancellations_total", phase="weights")
    assert wait_until(lambda: served.gateway.in_flight.count == 0)
    assert served.upstream.bodies == []


def paused_stream(go_on: threading.Event, _body: dict[str, Any]) -> FakeAnswer:
    return stream_answer(chunk("a"), go_on, chunk("b"), DONE)


def test_more_than_may_wait_are_a_429_and_who_leaves_the_line_frees_its_place(bundle: Bundle) -> None:
    for served in serve(bundle, max_running=1, max_waiting=1):
        go_on = threading.Event()
        served.upstream.answer = partial(paused_stream, go_on)
        with served.client.stream("POST", "/v1/chat/completions", json=HELLO | {"stream": True}) as response:
            pieces = response.iter_bytes()
            assert b'"a"' in next(pieces)
            with pytest.raises(httpx.ReadTimeout):
                served.client.post("/v1/chat/completions", json=HELLO, timeout=0.5)
            assert becomes(served, 1, "preforch_cancellations_total", phase="waiting")
            waiting = threading.Thread(target=served.chat)
            waiting.start()
            assert becomes(served, 1, "preforch_admission_waiting")
            refused = served.post("/generate", {"prompt": "x"})
            assert error_of(refused, 429)["code"] == "overloaded"
            assert refused.headers["Retry-After"]
            assert becomes(served, 1, "preforch_rejections_total", reason="generations")
            go_on.set()
            assert b"".join(pieces).endswith(DONE)
        waiting.join()
        assert len(served.upstream.bodies) == 2


def test_weights_are_bounded_too(bundle: Bundle) -> None:
    for served in serve(bundle, max_weights=1):
        served.recommender.delay = 1
        first = threading.Thread(target=served.post, args=("/weights", {"prompt": "x"}))
        first.start()
        assert wait_until(partial(eq, served.recommender.texts, ["x"]))
        assert error_of(served.post("/weights", {"prompt": "y"}), 429)["code"] == "overloaded"
        first.join()
        assert served.post("/weights", {"prompt": "z"}).status_code == 200


def test_a_full_queue_of_the_engine_is_a_429(served: Served) -> None:
    served.upstream.answer = lambda body: json_answer({"error": {"message": "queue"}}, status=503)
    for response in (served.chat(), served.post("/generate", {"prompt": "x"})):
        assert error_of(response, 429)["code"] == "overloaded"
        assert response.headers["Retry-After"]


def test_an_engine_that_is_late_is_a_504(served: Served) -> None:
    def late(body: dict[str, Any]) -> FakeAnswer:
        raise UpstreamLate("the engine sent nothing for 600 s")

    served.upstream.answer = late
    error = error_of(served.chat(), 504)
    assert (error["code"], error["message"]) == ("engine_timeout", "the engine sent nothing for 600 s")
    served.upstream.answer = lambda body: stream_answer(chunk("a"), UpstreamLate("the engine sent nothing more"))
    *_, last, _done, _ = served.chat(stream=True).content.split(b"\n\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_timeout"


def test_draining_refuses_new_requests_and_lets_streams_finish(served: Served) -> None:
    go_on = threading.Event()
    served.upstream.answer = lambda body: stream_answer(chunk("a"), go_on, chunk("b"), DONE)
    with served.client.stream("POST", "/v1/chat/completions", json=HELLO | {"stream": True}) as response:
        pieces = response.iter_bytes()
        assert b'"a"' in next(pieces)
        served.gateway.readiness.draining = True
        assert served.client.get("/readyz").status_code == 503
        assert served.client.get("/livez").status_code == 200
        refused = served.post("/weights", {"prompt": "x"})
        assert error_of(refused, 503)["code"] == "draining"
        assert refused.headers["Retry-After"]
        go_on.set()
        assert b"".join(pieces).endswith(DONE)


def test_generate(served: Served) -> None:
    response = served.post("/generate", {"prompt": "hello", "weights": FULL, "max_tokens": 5, "stop": ["x"]})
    assert response.json() == {
        "text": "hello",
        "weights": FULL,
        "source": "user",
        "finish_reason": "stop",
        "usage": CHAT["usage"],
        "model": "tiny",
        "id": "chatcmpl-1",
    }
    (body,) = served.upstream.bodies
    assert (body["path"], body["max_tokens"], body["stop"]) == ("/v1/chat/completions", 5, ["x"])
    assert error_of(served.post("/generate", {"prompt": "x", "tools": []}), 400)["param"] == "tools"
    assert error_of(served.post("/generate", {"prompt": "x", "max_tokens": "5"}), 400)["param"] == "max_tokens"
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
    assert response.headers["allow"] == "POST"
    error_of(client.post("/weights", content="{}", headers={"content-type": "text/plain"}), 415)
    error_of(client.post("/weights", content="{}"), 415)
    for content in ("", "{", "[]", "[" * 5000, '{"prompt": "\udcff"}'.encode("utf-8", "surrogateescape")):
        response = client.post("/weights", content=content, headers={"content-type": "application/json"})
        assert error_of(response, 400)["code"] == "invalid_json"
    infinite = '{"prompt": "x", "temperature": 1e999}'
    error_of(client.post("/v1/completions", content=infinite, headers={"content-type": "application/json"}), 400)


@pytest.mark.parametrize("path", ["/weights", "/generate", "/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    "content",
    [b'{"prompt": "\\ud800"}', b'{"foo\\ud800": 1}', b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": {"a": ["\\udfff"]}}'],
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
