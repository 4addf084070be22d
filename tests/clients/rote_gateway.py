"""A gateway that answers by rote, on a loopback port: what the command and the examples talk to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RECOMMENDED = {"helpful": 0.2, "harmless": 0.75, "humor": 0.05}
BUNDLE = "b" * 64
ANSWER = ["Sit ", "down, breathe…", " and\u2028wait."]


@dataclass
class Gateway:
    """Where it listens, and the requests it got: (path, headers in lower case, body)."""

    url: str
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """Bodies that one path got, in order."""
        return [body for got, _, body in self.requests if got == path]


def preference(body: dict[str, Any], header: str | None = None) -> dict[str, Any]:
    """The preference object for a request."""
    asked = body.get("preference_weights") or body.get("weights") or {}
    if header:
        asked = {name: float(value) for name, value in (item.split("=") for item in header.split(","))}
    source = "blended" if asked else "orchestrator"
    return {
        "weights": RECOMMENDED | asked,
        "source": source,
        "recommended": RECOMMENDED,
        "clamped": {},
        "applied": True,
    } | {"bundle": BUNDLE}


def chat_events(body: dict[str, Any], header: str | None = None) -> bytes:
    """A streamed chat completion as vLLM writes it, the preference object in the first chunk."""
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        *({"content": part} for part in ANSWER),
    ]
    chunks: list[dict[str, Any]] = [
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "demo",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}],
        }
        for delta in deltas
    ]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    chunks[0]["preference"] = preference(body, header)
    lines = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def chat_answer(body: dict[str, Any]) -> dict[str, Any]:
    """A chat completion as vLLM writes it, with the preference object."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(ANSWER),
        "refusal": None,
        "tool_calls": [],
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "demo",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
        "preference": preference(body),
    }


def answer_by_rote(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Answers that are not streams."""
    certainty = {"entropy": 0.687, "confidence": 0.375}
    weighed = {"weights": RECOMMENDED, "source": "orchestrator", "recommended": RECOMMENDED} | certainty
    objectives = [{"name": name, "description": "", "bounds": [0.0, 1.0]} for name in RECOMMENDED]
    asked = preference(body)
    answers: dict[str, dict[str, Any]] = {
        "/weights": weighed | {"bundle": BUNDLE},
        "/objectives": {"objectives": objectives, "fallback": RECOMMENDED, "bundle": BUNDLE},
        "/generate": {
            "text": "".join(ANSWER),
            "weights": asked["weights"],
            "source": asked["source"],
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
            "model": "demo",
            "id": "chatcmpl-1",
        },
        "/v1/chat/completions": chat_answer(body),
        "/v1/models": {
            "object": "list",
            "data": [{"id": "demo", "object": "model", "created": 1, "owned_by": "x"}],
        },
    }
    return answers[path]


def unknown_objective(body: dict[str, Any]) -> str | None:
    """An objective of the request that does not exist."""
    asked = body.get("preference_weights") or {}
    return next((name for name in asked if name not in RECOMMENDED), None)


@contextmanager
def running_gateway() -> Iterator[Gateway]:
    """A running gateway. The prompt `overload` gets a 429."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            seen.requests.append(
                (self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            )
            if (name := unknown_objective(body)) is not None:
                self._error(400, f"unknown objective {name!r}", "preference_weights")
            elif "overload" in json.dumps(body):
                self._error(429, "the queue is full", None)
            elif body.get("stream"):
                self._send(200, chat_events(body, self.headers["X-Preference-Weights"]), "text/event-stream")
            else:
                self._send(200, json.dumps(answer_by_rote(self.path, body)).encode(), "application/json")

        def _error(self, status: int, message: str, param: str | None) -> None:
            error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
            self._send(status, json.dumps({"error": error}).encode(), "application/json")

        def _send(self, status: int, content: bytes, media_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("X-Request-Id", "request-1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = Gateway(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()
