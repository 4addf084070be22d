"""Stand-ins at the gateway's two seams, orchestrator and engine, and a gateway on a real port around them."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from preforch_models.bundle import Bundle
from preforch_models.conditioning import Conditioning
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.context import ContextFormat, objective_tokens
from preforch_models.policy_card import PolicyCard
from preforch_models.weights import Weights
from preforch_service.app import create_app
from preforch_service.conditioning.rendering import PROBE
from preforch_service.engine.upstream import UpstreamDown
from preforch_service.gateway import Gateway, build_gateway
from preforch_service.listener import ListenerConfig
from preforch_service.recommendation.active_bundle import InForce, assemble
from preforch_service.recommendation.recommender import Recommendation, Recommender
from preforch_service.settings import ServeSettings
from preforch_service.telemetry.metrics import Metrics
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

CONTROL = ("<W1>", "<W2>", "<W3>", "<|im_start|>", "<|im_end|>")
RECOMMENDED: Weights = {"helpful": 0.5, "harmless": 0.3, "humor": 0.2}
CHAT = {
    "id": "chatcmpl-1",
    "model": "tiny",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


@dataclass
class FakeRecommender:
    """Answers at once, late, or with an error; remembers the texts."""

    weights: Weights = field(default_factory=lambda: dict(RECOMMENDED))
    confidence: float = 0.62
    delay: float = 0.0
    error: Exception | None = None
    texts: list[str] = field(default_factory=list)
    closed: bool = False

    async def recommend(self, texts: Sequence[str]) -> list[Recommendation]:
        self.texts += texts
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        return [Recommendation(dict(self.weights), self.confidence) for _ in texts]

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeAnswer:
    """Bytes, errors and waits (an event) in the order in which they come."""

    pieces: Sequence[bytes | Exception | threading.Event]
    status: int = 200
    content_type: str = "application/json"
    begun: bool = True
    closed: threading.Event = field(default_factory=threading.Event)

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                yield piece
                continue
            while not piece.is_set():
                await asyncio.sleep(0.01)

    def close(self) -> None:
        self.closed.set()


def json_answer(value: object, status: int = 200) -> FakeAnswer:
    """A complete JSON answer."""
    return FakeAnswer([json.dumps(value).encode()], status)


def stream_answer(*pieces: bytes | Exception | threading.Event) -> FakeAnswer:
    """Events."""
    return FakeAnswer(pieces, content_type="text/event-stream")


RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "tiny",
    "status": "completed",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hello", "annotations": []}],
        }
    ],
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "tiny",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
COMPLETION = CHAT | {"choices": [{"index": 0, "text": "hello", "finish_reason": "stop"}]}


def any_answer(body: dict[str, Any]) -> FakeAnswer:
    """The answer of an engine that takes everything."""
    if body.get("stream") is True:
        return stream_answer(*STREAMS.get(body["path"], (chunk("a"), b"data: [DONE]\n\n")))
    return json_answer(ANSWERS[body["path"]])


def named_event(kind: str, **more: object) -> bytes:
    """One event of Responses or Messages."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/responses": RESPONSE,
    "/v1/messages": MESSAGE,
    "/v1/messages/count_tokens": {"input_tokens": 3},
}
"""What an engine answers, by route."""
STREAMS = {
    "/v1/responses": (
        named_event("response.created", response=RESPONSE | {"status": "in_progress"}, sequence_number=0),
        named_event(
            "response.output_text.delta",
            delta="hello",
            item_id="msg_1",
            output_index=0,
            content_index=0,
            logprobs=[],
            sequence_number=1,
        ),
        named_event("response.completed", response=RESPONSE, sequence_number=2),
    ),
    "/v1/messages": (
        named_event("message_start", message=MESSAGE | {"content": [], "stop_reason": None}),
        named_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        named_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hello"}),
        named_event("content_block_stop", index=0),
        named_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 1}),
        named_event("message_stop"),
    ),
}


def chunk(content: str, **more: object) -> bytes:
    """One event of a chat completion."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    value = {"id": "chatcmpl-1", "model": "tiny", "choices": [choice], **more}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


NO_PARSER = {
    "error": {
        "message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
}
"""How vLLM refuses a chat with tools that may be called."""


@dataclass
class FakeUpstream:
    """An engine whose template prints the weights; `answer` makes the answers to generations.

    `tokens`: what the template prints around a text, for weights that are empty where a request names none.
    `drops`: what its template drops from a user's text. `members`: further models. `silent`: it never answers
    what is no generation. `parses_calls`: whether it has a parser for tool calls, as its chats say.
    """

    answer: Callable[[dict[str, Any]], FakeAnswer] = lambda body: json_answer(CHAT)
    down: bool = False
    silent: bool = False
    parses_calls: bool = True
    health: int = 200
    probe: int = 200
    drops: str = ""
    members: Sequence[str] = ()
    tokens: Callable[[Weights], list[str]] = lambda weights: [
        piece
        for token, value in zip(objective_tokens(3), weights.values(), strict=True)
        for piece in (token, str(value))
    ]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> FakeAnswer:
        if self.down:
            raise UpstreamDown("no engine here")
        if path == "/health":
            return FakeAnswer([], self.health)
        if path == "/v1/models" and self.silent:
            return FakeAnswer([threading.Event()])
        if path == "/v1/models":
            data = [{"id": "tiny", "root": "/secret/policy", "max_model_len": 256}]
            data += [{"id": name} for name in self.members]
            return json_answer({"object": "list", "data": data})
        sent = json.loads(body or b"{}")
        if path == "/tokenize":
            text = sent["messages"][0]["content"].replace(self.drops, "") if self.drops else ""
            read = [string for string in CONTROL if string in text]
            weights = sent["chat_template_kwargs"].get("weights", {})
            return json_answer({"token_strs": [*read, *self.tokens(weights)]})
        if "tools" in sent and not self.parses_calls and path == "/v1/chat/completions":
            return json_answer(NO_PARSER, 400)
        if sent.get("messages") == [{"role": "user", "content": PROBE}]:
            return json_answer(CHAT, self.probe)
        sent["path"] = path
        self.bodies.append(sent)
        self.headers.append(headers or {})
        return self.answer(sent)

    async def close(self) -> None:
        self.down = True


def policy_card(context_format: ContextFormat, conditioning: Conditioning | None = None) -> PolicyCard:
    """The card of the fake engine's policy, which reads this context unless it is conditioned otherwise."""
    return PolicyCard(
        objectives=context_format.objectives,
        conditioning=conditioning or ContextConditioning(encoding=context_format.encoding),
        control_strings=(*CONTROL, *(conditioning.marks if conditioning else ())),
        control_token_ids=(5, 6, 7, 8),
        max_model_len=256,
        revision="r",
        name="tiny",
    )


def fixed_upstream() -> FakeUpstream:
    """An engine whose template prints no weights."""
    return FakeUpstream(tokens=lambda _weights: ["<|im_start|>", "user", "<|im_end|>"])


def make_gateway(
    bundle: Bundle,
    *,
    recommender: Recommender | None = None,
    upstream: FakeUpstream | None = None,
    conditioning: Conditioning | None = None,
    **settings: object,
) -> Gateway:
    """A gateway whose engine, if there is one, has been checked once."""
    given = ServeSettings.model_validate({"path": Path("run"), **settings})
    metrics = Metrics()
    gateway = build_gateway(
        given,
        InForce(assemble(given, bundle, recommender or FakeRecommender(), metrics)),
        metrics=metrics,
        card=policy_card(bundle.info.context, conditioning) if upstream else None,
        upstreams={"engine": upstream} if upstream else None,
    )
    asyncio.run(gateway.readiness.check())
    return gateway


def engine_app(upstream: FakeUpstream) -> ASGIApp:
    """The fake engine as an HTTP server, for a gateway in a process of its own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = await upstream.request(request.method, request.url.path, await request.body() or None)
        response = StreamingResponse(answer.chunks(), answer.status, media_type=answer.content_type)
        try:
            await response(scope, receive, send)
        finally:
            answer.close()

    return app


@contextmanager
def running(gateway: Gateway) -> Iterator[str]:
    """Serve a gateway on a free port; gives the URL."""
    settings = gateway.settings
    with running_config(
        ListenerConfig(create_app(gateway), settings, idle_timeout=settings.idle_timeout)
    ) as url:
        yield url


@contextmanager
def running_app(app: ASGIApp) -> Iterator[str]:
    """Serve on a free port; gives the URL."""
    with running_config(
        uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    ) as url:
        yield url


@contextmanager
def running_config(config: uvicorn.Config) -> Iterator[str]:
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
