"""The Python client, on httpx's MockTransport: what it sends, how it reads answers cut at any byte."""

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest
from preforch_client import (
    AccessDenied,
    AsyncClient,
    BadRequest,
    ChatChunk,
    Client,
    PreferenceError,
    ServiceFailed,
    ServiceUnavailable,
    ServiceUnreachable,
)

MESSAGES = [{"role": "user", "content": "How do I calm a dog?"}]
WEIGHTS = {"helpful": 0.2, "harmless": 0.8}
WEIGHED = {
    "weights": WEIGHTS,
    "source": "orchestrator",
    "recommended": WEIGHTS,
    "entropy": 0.5,
    "confidence": 0.28,
}
CLAMPED = {"harmless": {"low": 0.3}}
PREFERENCE = {"weights": WEIGHTS, "source": "user", "recommended": None, "clamped": CLAMPED, "bundle": "abc"}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "demo",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Wait.", "tool_calls": []},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    "preference": PREFERENCE,
}
TEXT = ["Grüße ", "an\u2028den ", '🐕 "error"', "\r\n!"]


def chunk(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def chat_stream() -> bytes:
    first = chunk(
        choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}], preference=PREFERENCE
    )
    middle = [
        chunk(choices=[{"index": 0, "delta": {"content": part}, "finish_reason": None}]) for part in TEXT
    ]
    usage = chunk(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13})
    return first + b": a comment\n\n" + b"".join(middle) + usage + b"data: [DONE]\n\n"


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that arrives in pieces of a fixed size, and remembers that it was closed."""

    def __init__(self, content: bytes, size: int) -> None:
        self.pieces = [content[i : i + size] for i in range(0, len(content), size)]
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def answering(
    body: object = None, *, status: int = 200, headers: dict[str, str] | None = None
) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A transport with one answer (bytes as they are, else JSON), and the requests that it got."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if isinstance(body, Pieces):
            return httpx.Response(status, stream=body, headers=headers)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(status, content=content, headers=headers)

    return httpx.MockTransport(answer), seen


def failing(error: Exception) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return httpx.MockTransport(answer)


def collect(chunks: Iterable[ChatChunk], texts: list[str]) -> None:
    """Append the texts one by one, so that those before an error are kept."""
    for part in chunks:
        texts.append(part.text)


def sent(request: httpx.Request) -> Any:
    return json.loads(request.content)


def test_weights_of_a_prompt_are_asked_for_and_read() -> None:
    transport, seen = answering(WEIGHED | {"bundle": "abc", "field_of_a_newer_gateway": 1})
    with Client("http://gateway:8000", api_key="secret", transport=transport) as client:
        recommendation = client.weights("Hello")
    assert (recommendation.weights, recommendation.source, recommendation.bundle) == (
        WEIGHTS,
        "orchestrator",
        "abc",
    )
    assert (recommendation.entropy, recommendation.confidence) == (0.5, 0.28)
    assert (seen[0].method, str(seen[0].url)) == ("POST", "http://gateway:8000/weights")
    assert seen[0].headers["Authorization"] == "Bearer secret"
    assert sent(seen[0]) == {"prompt": "Hello"}


def test_without_a_key_no_authorization_header_is_sent() -> None:
    transport, seen = answering(WEIGHED)
    with Client(transport=transport) as client:
        client.weights("Hello")
    assert "Authorization" not in seen[0].headers


def test_weights_of_several_inputs_come_in_order_each_with_the_bundle() -> None:
    other = WEIGHED | {"source": "fallback", "entropy": None, "confidence": None, "recommended": None}
    transport, seen = answering({"results": [WEIGHED, other], "bundle": "abc"})
    with Client(transport=transport) as client:
        results = client.weights(inputs=("one", "two"))
    assert [(result.source, result.bundle) for result in results] == [
        ("orchestrator", "abc"),
        ("fallback", "abc"),
    ]
    assert sent(seen[0]) == {"inputs": ["one", "two"]}


@pytest.mark.parametrize(
    "arguments", [{}, {"prompt": "a", "messages": MESSAGES}, {"messages": MESSAGES, "inputs": []}]
)
def test_exactly_one_kind_of_input_is_allowed(arguments: dict[str, Any]) -> None:
    transport, seen = answering(WEIGHED)
    with (
        Client(transport=transport) as client,
        pytest.raises(ValueError, match="exactly one of prompt, messages"),
    ):
        client.weights(**arguments)
    assert seen == []


def test_generate_sends_its_options_and_leaves_out_what_is_none() -> None:
    answer = {
        "text": "Wait.",
        "weights": WEIGHTS,
        "source": "user",
        "finish_reason": "stop",
        "usage": None,
        "id": "1",
    }
    transport, seen = answering(answer | {"model": "demo"})
    with Client(transport=transport) as client:
        generation = client.generate("Hello", weights=(0.2, 0.8), max_tokens=5, stop=["\n"])
        client.generate(messages=MESSAGES, weights=None)
    assert (generation.text, generation.source, generation.model) == ("Wait.", "user", "demo")
    assert sent(seen[0]) == {"prompt": "Hello", "weights": [0.2, 0.8], "max_tokens": 5, "stop": ["\n"]}
    assert sent(seen[1]) == {"messages": MESSAGES}


def test_chat_carries_weights_and_openai_fields_and_keeps_unnamed_ones() -> None:
    transport, seen = answering(COMPLETION)
    with Client(transport=transport) as client:
        answer = client.chat(MESSAGES, weights=WEIGHTS, model="demo", temperature=0.5)
    assert sent(seen[0]) == {
        "messages": MESSAGES,
        "preference_weights": WEIGHTS,
        "model": "demo",
        "temperature": 0.5,
    }
    assert answer.text == "Wait."
    assert answer.preference is not None
    assert (answer.preference.source, answer.preference.clamped) == ("user", CLAMPED)
    assert (answer.model_extra or {})["object"] == "chat.completion"
    assert (answer.choices[0].message.model_extra or {})["tool_calls"] == []


def test_a_preset_is_asked_for_by_its_name_on_each_route() -> None:
    transport, seen = answering(WEIGHED | {"preset": "safe"})
    with Client(transport=transport) as client:
        assert client.weights("Hello", weights={"humor": 0.2}, preset="safe").preset == "safe"
    transport, more = answering({"text": "Wait.", "weights": WEIGHTS, "source": "preset"})
    with Client(transport=transport) as client:
        client.generate("Hello", preset="safe")
    transport, most = answering(COMPLETION)
    with Client(transport=transport) as client:
        client.chat(MESSAGES, preset="safe", weights={"helpful": 0.2})
    assert [sent(request) for request in (*seen, *more, *most)] == [
        {"prompt": "Hello", "weights": {"humor": 0.2}, "preset": "safe"},
        {"prompt": "Hello", "preset": "safe"},
        {"messages": MESSAGES, "preference_weights": {"helpful": 0.2}, "preference_preset": "safe"},
    ]


def test_ignored_fields_are_those_that_the_header_names() -> None:
    headers = {"X-Preference-Ignored": "store, messages.agent"}
    for said, read in ((headers, ("store", "messages.agent")), ({}, ())):
        transport, _ = answering(COMPLETION, headers=said)
        with Client(transport=transport) as client:
            assert client.chat(MESSAGES, store=True).ignored == read
        transport, _ = answering(Pieces(chat_stream(), 64), headers=said)
        with Client(transport=transport) as client, client.chat(MESSAGES, stream=True) as stream:
            assert stream.ignored == read


@pytest.mark.parametrize(
    ("said", "read"), [({"applied": False}, False), ({"applied": True}, True), ({}, True)]
)
def test_whether_weights_were_applied_is_read_and_true_where_an_older_gateway_is_silent(
    said: dict[str, bool], read: bool
) -> None:
    transport, _ = answering(COMPLETION | {"preference": PREFERENCE | said})
    with Client(transport=transport) as client:
        preference = client.chat(MESSAGES).preference
    assert preference is not None
    assert preference.applied is read
    transport, _ = answering({"text": "Wait.", "weights": WEIGHTS, "source": "user"} | said)
    with Client(transport=transport) as client:
        assert client.generate("Hello").applied is read


@pytest.mark.parametrize(("said", "read"), [({"advice": True}, True), ({}, False)])
def test_whether_weights_are_advice_is_read_and_false_where_nothing_is_said(
    said: dict[str, bool], read: bool
) -> None:
    transport, _ = answering({"text": "Wait.", "weights": WEIGHTS, "source": "user"} | said)
    with Client(transport=transport) as client:
        assert client.generate("Hello").advice is read
    first = chunk(text="Wait.", weights=WEIGHTS, source="user", **said)
    transport, _ = answering(Pieces(first + b"data: [DONE]\n\n", 5))
    with Client(transport=transport) as client:
        assert [bool(event.advice) for event in client.generate("Hello", stream=True)] == [read]


def test_results_cannot_be_changed() -> None:
    transport, _ = answering(COMPLETION)
    with Client(transport=transport) as client, pytest.raises(ValueError, match="frozen"):
        client.chat(MESSAGES).id = "other"  # type: ignore[misc]  # the fault under test


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_chat_stream_reads_the_same_however_it_is_cut(size: int, line_end: bytes) -> None:
    body = Pieces(chat_stream().replace(b"\n", line_end) + b"\n", size)
    transport, seen = answering(body)
    with Client(transport=transport) as client:
        chunks = list(client.chat(MESSAGES, stream=True))
    assert "".join(chunk.text for chunk in chunks) == "".join(TEXT)
    assert [chunk.preference is not None for chunk in chunks] == [True, *[False] * (len(TEXT) + 1)]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 13
    assert body.closed
    assert sent(seen[0])["stream"] is True


def test_a_generate_stream_names_the_weights_and_then_the_text() -> None:
    first = chunk(text="Wa", weights=WEIGHTS, source="user", applied=False)
    events = [first, chunk(text="it.", finish_reason="stop")]
    transport, _ = answering(Pieces(b"".join(events) + b"data: [DONE]\n\n", 5))
    with Client(transport=transport) as client:
        chunks = list(client.generate("Hello", stream=True))
    assert (chunks[0].weights, chunks[0].source, chunks[0].applied) == (WEIGHTS, "user", False)
    assert (chunks[1].weights, chunks[1].applied) == (None, None)
    assert [chunk.text for chunk in chunks] == ["Wa", "it."]
    assert chunks[-1].finish_reason == "stop"


def test_leaving_a_stream_early_closes_the_connection() -> None:
    body = Pieces(chat_stream(), 7)
    transport, _ = answering(body)
    with Client(transport=transport) as client, client.chat(MESSAGES, stream=True) as chunks:
        reading = iter(chunks)
        assert next(reading).preference is not None
        assert not body.closed
    assert body.closed


def test_an_error_event_ends_a_stream_after_what_came_before() -> None:
    error = chunk(
        error={"message": "the engine died while it was answering", "type": "x", "code": "engine_down"}
    )
    body = chunk(choices=[{"index": 0, "delta": {"content": "Wa"}}]) + error + b"data: [DONE]\n\n"
    transport, _ = answering(body, headers={"X-Request-Id": "r1"})
    texts: list[str] = []
    with Client(transport=transport) as client, pytest.raises(ServiceFailed, match="engine died") as caught:
        collect(client.chat(MESSAGES, stream=True), texts)
    assert texts == ["Wa"]
    assert (caught.value.code, caught.value.request_id) == ("engine_down", "r1")


def test_a_stream_without_its_end_is_an_error() -> None:
    transport, _ = answering(chat_stream().removesuffix(b"data: [DONE]\n\n"))
    texts: list[str] = []
    with Client(transport=transport) as client, pytest.raises(ServiceUnreachable, match="broke off"):
        collect(client.chat(MESSAGES, stream=True), texts)
    assert "".join(texts) == "".join(TEXT)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, BadRequest),
        (413, BadRequest),
        (429, ServiceUnavailable),
        (500, ServiceFailed),
        (502, ServiceFailed),
        (503, ServiceUnavailable),
        (302, ServiceFailed),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_status_has_its_error(status: int, kind: type[PreferenceError], stream: bool) -> None:
    error = {
        "message": "unknown objective 'x'",
        "type": "t",
        "param": "preference_weights",
        "code": "invalid_weights",
    }
    transport, _ = answering(
        {"error": error}, status=status, headers={"X-Request-Id": "r1", "Retry-After": "2"}
    )
    with Client(transport=transport, max_retries=0) as client, pytest.raises(PreferenceError) as caught:
        client.chat(MESSAGES, stream=True) if stream else client.chat(MESSAGES)
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.message == "unknown objective 'x'"
    assert (caught.value.param, caught.value.code) == ("preference_weights", "invalid_weights")
    assert (caught.value.request_id, caught.value.retry_after) == ("r1", 2.0)
    assert str(caught.value) == f"unknown objective 'x' (HTTP {status}, param preference_weights, request r1)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Bad gateway</html>", "<html>Bad gateway"),
        (b"", "no message"),
        (b'{"error": "plain"}', "plain"),
    ],
)
def test_errors_of_proxies_are_shown_as_they_are(content: bytes, message: str) -> None:
    transport, _ = answering(content, status=502)
    with Client(transport=transport) as client, pytest.raises(ServiceFailed, match=message) as caught:
        client.weights("Hello")
    assert caught.value.retry_after is None


@pytest.mark.parametrize("content", [b"<html>welcome</html>", b"{}", b'{"weights": "all", "source": "user"}'])
def test_an_answer_of_something_else_is_named(content: bytes) -> None:
    transport, _ = answering(content)
    with (
        Client(transport=transport) as client,
        pytest.raises(ServiceFailed, match="not the answer of a gateway"),
    ):
        client.weights("Hello")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx.ConnectError("Connection refused"), "cannot reach http://gateway:8000: Connection refused"),
        (httpx.ReadTimeout(""), r"http://gateway:8000 did not answer in time \(ReadTimeout\)"),
        (httpx.RemoteProtocolError(""), "cannot reach http://gateway:8000: RemoteProtocolError"),
    ],
)
def test_connection_errors_name_the_address(error: Exception, message: str) -> None:
    calls: list[Callable[[Client], object]] = [
        lambda client: client.weights("Hello"),
        lambda client: client.chat(MESSAGES, stream=True),
        lambda client: client.ready(),
    ]
    for call in calls:
        client = Client("http://gateway:8000", transport=failing(error), max_retries=0)
        with client, pytest.raises(ServiceUnreachable, match=message):
            call(client)


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host", "http://", "http://host:port", ""])
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(ValueError, match="gateway address"):
        Client(address)


def test_ready_tells_not_ready_from_broken() -> None:
    for status, expected in [(200, True), (503, False)]:
        transport, seen = answering({"ready": expected}, status=status)
        with Client(transport=transport) as client:
            assert client.ready() is expected
        assert seen[0].url.path == "/readyz"
    transport, _ = answering({}, status=404)
    with Client(transport=transport) as client, pytest.raises(BadRequest):
        client.ready()


def test_objectives_are_read() -> None:
    objective = {"name": "helpful", "description": "does what was asked", "bounds": [0.1, 0.9]}
    transport, seen = answering({"objectives": [objective], "fallback": WEIGHTS, "bundle": "abc"})
    with Client(transport=transport) as client:
        served = client.objectives()
    assert (served.objectives[0].name, served.objectives[0].bounds) == ("helpful", (0.1, 0.9))
    assert (served.fallback, seen[0].method) == (WEIGHTS, "GET")


def test_the_async_client_does_the_same() -> None:
    async def check() -> None:
        transport, seen = answering(COMPLETION)
        async with AsyncClient(transport=transport) as client:
            assert (await client.chat(MESSAGES, weights=WEIGHTS)).text == "Wait."
            assert await client.ready()
        assert sent(seen[0])["preference_weights"] == WEIGHTS
        transport, _ = answering({"results": [WEIGHED], "bundle": "abc"})
        async with AsyncClient(transport=transport) as client:
            assert [result.bundle for result in await client.weights(inputs=["one"])] == ["abc"]

    asyncio.run(check())


def test_the_async_client_streams_and_closes() -> None:
    async def check(body: Pieces) -> list[str]:
        transport, _ = answering(body, headers={"X-Preference-Ignored": "store"})
        async with AsyncClient(transport=transport) as client:
            stream = await client.chat(MESSAGES, preset="safe", stream=True)
            assert stream.ignored == ("store",)
            return [part.text async for part in stream]

    body = Pieces(chat_stream(), 3)
    assert "".join(asyncio.run(check(body))) == "".join(TEXT)
    assert body.closed


def test_the_async_client_raises_the_same_errors() -> None:
    async def ask(transport: httpx.MockTransport, *, stream: bool) -> None:
        async with AsyncClient(transport=transport, max_retries=0) as client:
            if stream:
                await client.generate("Hello", stream=True)
            else:
                await client.generate("Hello")

    for stream in (False, True):
        transport, _ = answering({"error": {"message": "no"}}, status=401)
        with pytest.raises(AccessDenied, match="no"):
            asyncio.run(ask(transport, stream=stream))
        with pytest.raises(ServiceUnreachable, match="cannot reach"):
            asyncio.run(ask(failing(httpx.ConnectError("refused")), stream=stream))


def test_errors_survive_pickling() -> None:
    error = BadRequest("no", status=400, param="weights")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.param) == (BadRequest, str(error), "weights")


def test_the_client_imports_nothing_else_of_this_project() -> None:
    code = "import sys, preforch_client; print([m for m in sys.modules if m.startswith('preforch_')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "preforch_client.wire" in done.stdout
    assert not any(
        name in done.stdout for name in ("preforch_models", "preforch_service", "preforch_training")
    )
