"""Comments that keep a silent stream's connection open, over a real port."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator

import openai
import pytest
from fakes import STREAMS, chunk, stream_answer
from preforch_models.bundle import Bundle
from preforch_service.engine.relay import KEEP_ALIVE
from preforch_service.engine.upstream import UpstreamDown
from processes import wait_until
from served import DONE, HELLO, Served, serve

STREAM = HELLO | {"stream": True}
COMMENTS = re.compile(b"^(?:" + KEEP_ALIVE + b")*")


@pytest.fixture(scope="module")
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle, sse_keep_alive=0.1)


class Silence(threading.Event):
    """Over 0.35 s after the first look at it: long enough for three comments."""

    def __init__(self) -> None:
        super().__init__()
        self.over: float | None = None

    def is_set(self) -> bool:
        self.over = self.over or time.monotonic() + 0.35
        return time.monotonic() > self.over


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/generate"])
def test_comments_come_between_events_while_the_engine_is_silent(served: Served, path: str) -> None:
    body = STREAM if "chat" in path else {"prompt": "x", "stream": True}
    a, b = chunk("a"), chunk("b")
    served.upstream.answer = lambda body: stream_answer(a, b, DONE)
    usual = served.post(path, body).content
    assert KEEP_ALIVE not in usual
    cut = b.index(b"content")
    pieces = (Silence(), a, Silence(), b[:cut], Silence(), b[cut:-1], Silence(), b[-1:] + DONE)
    served.upstream.answer = lambda body: stream_answer(*pieces)
    response = served.post(path, body)
    assert response.headers["X-Preference-Source"] == "orchestrator"
    events = [event + b"\n\n" for event in response.content.split(b"\n\n")[:-1]]
    assert b"".join(COMMENTS.sub(b"", event) for event in events) == usual, "comments stand before events"
    before_a, before_b, *rest = [event.count(KEEP_ALIVE) for event in events]
    assert (before_a >= 1, before_b >= 3, sum(rest)) == (True, True, 0)


def test_clients_see_no_comment(served: Served) -> None:
    served.upstream.answer = lambda body: stream_answer(Silence(), chunk("a"), Silence(), chunk("b"), DONE)
    with openai.OpenAI(base_url=f"{served.client.base_url}/v1", api_key="none") as client:
        chunks = list(
            client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hello"}], stream=True
            )
        )
    assert [each.choices[0].delta.content for each in chunks] == ["a", "b"]
    assert (chunks[0].model_extra or {})["preference"]["source"] == "orchestrator"


def test_a_stream_that_has_comments_already_gets_its_preference(bundle: Bundle) -> None:
    for served in serve(bundle):
        served.upstream.answer = lambda body: stream_answer(KEEP_ALIVE, Silence(), chunk("a"), DONE)
        content = served.chat(stream=True).content
        assert content.count(KEEP_ALIVE) == 1, "none of ours, which nobody asked for"
        event = json.loads(content.removeprefix(KEEP_ALIVE + b"data: ").partition(b"\n")[0])
        assert event["preference"]["source"] == "orchestrator"


def test_a_client_that_leaves_in_the_silence_is_noticed_before_the_first_byte(served: Served) -> None:
    answer = stream_answer(threading.Event())
    served.upstream.answer = lambda body: answer
    with served.client.stream("POST", "/v1/chat/completions", json=STREAM) as response:
        assert next(response.iter_bytes()) == KEEP_ALIVE
    assert answer.closed.wait(5)
    registry, labels = served.gateway.metrics.registry, {"phase": "first_byte"}
    assert wait_until(lambda: registry.get_sample_value("preforch_cancellations_total", labels) == 1)
    assert wait_until(lambda: served.gateway.in_flight.count == 0)


def test_a_silent_stream_that_breaks_off_ends_with_an_error_event(served: Served) -> None:
    broken = UpstreamDown("gone", reason="broken")
    served.upstream.answer = lambda body: stream_answer(b'data: {"half', Silence(), broken)
    error = COMMENTS.sub(b"", served.chat(stream=True).content)
    first, done = error.removesuffix(DONE), error.endswith(DONE)
    assert (json.loads(first.removeprefix(b"data: "))["error"]["code"], done) == ("engine_down", True)


@pytest.mark.parametrize(("path", "inside"), [("/v1/responses", "response"), ("/v1/messages", "message")])
def test_comments_before_named_events_change_neither_the_preference_nor_the_end(
    served: Served, path: str, inside: str
) -> None:
    first, second, *_ = STREAMS[path]
    broken = UpstreamDown("gone", reason="broken")
    served.upstream.answer = lambda body: stream_answer(
        Silence(), first, Silence(), second, Silence(), broken
    )
    body = {"input": "x", "messages": HELLO["messages"]}
    del body["messages" if inside == "response" else "input"]
    # The answer before may have put the engine down.
    assert asyncio.run(served.gateway.readiness.check())
    content = served.post(path, body | {"stream": True}).content
    *events, nothing = content.split(b"\n\n")
    assert (len(events), nothing) == (3, b"")
    assert all(event.startswith(KEEP_ALIVE) for event in events)
    began, _, ended = (json.loads(event.partition(b"\ndata: ")[2]) for event in events)
    assert began[inside]["preference"]["source"] == "orchestrator"
    assert (ended["type"], ended.get("sequence_number", 2)) == ("error", 2)
