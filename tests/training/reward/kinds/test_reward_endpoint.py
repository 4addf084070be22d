"""Reward kind `endpoint`: asked in batches by the contract, and named where it answers otherwise."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from preforch_training.reward.config import EndpointReward
from reward_world import PROMPTS, RESPONSES, reward

Answer = Callable[[dict[str, Any]], bytes | int]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], tuple[str, list[dict[str, Any]]]]]:
    """Start a real HTTP server on the loopback: answer -> (url, requests so far); a number is a status."""
    servers = []

    def start(answer: Answer) -> tuple[str, list[dict[str, Any]]]:
        seen: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append(body)
                reply = answer(body)
                self.send_response(reply if isinstance(reply, int) else 200)
                self.end_headers()
                self.wfile.write(b"" if isinstance(reply, int) else reply)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/reward", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


Serve = Callable[[Answer], tuple[str, list[dict[str, Any]]]]


def lengths(body: dict[str, Any]) -> bytes:
    return json.dumps({"rewards": [len(response) for response in body["labels"]]}).encode()


def test_an_endpoint_is_asked_in_batches_by_the_contract(serve: Serve) -> None:
    url, seen = serve(lengths)
    rewards = reward(EndpointReward(url=url, batch_size=2))
    np.testing.assert_array_equal(rewards, [len(response) for response in RESPONSES])
    assert [len(body["query"]) for body in seen] == [2, 2, 1]
    assert seen[0]["prompts"] == [prompt.text for prompt in PROMPTS[:2]]
    assert seen[0]["query"] == [p.text + r for p, r in zip(PROMPTS[:2], RESPONSES[:2], strict=True)]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b'{"rewards": [1, NaN]}', "endpoint reward of response 1 is nan, it must be finite"),
        (b'{"rewards": [1, Infinity]}', "endpoint reward of response 1 is inf"),
        (b'{"rewards": [1]}', "1 rewards for 2 responses"),
        (b'{"rewards": [1, "x"]}', "expected {'rewards'"),
        (b'{"rewards": [1, null]}', "expected {'rewards'"),
        (b'{"scores": [1, 2]}', "KeyError.*expected {'rewards'"),
        (b"[1, 2]", "expected {'rewards'"),
        (b"not json", "expected {'rewards'"),
        (500, "500 Internal Server Error"),
    ],
)
def test_a_wrong_answer_of_an_endpoint_is_named(serve: Serve, reply: bytes | int, message: str) -> None:
    url, _ = serve(lambda body: reply)
    with pytest.raises(ValueError, match=message):
        reward(EndpointReward(url=url), PROMPTS[:2], RESPONSES[:2])


def test_counts_that_are_wrong_in_two_batches_but_right_together_are_found(serve: Serve) -> None:
    replies = iter([b'{"rewards": [1, 2, 3]}', b'{"rewards": [4]}'])
    url, _ = serve(lambda body: next(replies))
    with pytest.raises(ValueError, match="3 rewards for 2 responses"):
        reward(EndpointReward(url=url, batch_size=2), PROMPTS[:4], RESPONSES[:4])


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"reward endpoint http://127\.0\.0\.1:1/: ConnectError"):
        reward(EndpointReward(url="http://127.0.0.1:1/"))
