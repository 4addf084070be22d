"""A gateway with fakes behind it, on a real port, and a client of it."""

from collections.abc import Iterator
from typing import Any

import httpx
from fakes import FakeRecommender, FakeUpstream, make_gateway, running
from preforch_models.bundle import Bundle
from preforch_models.conditioning import Conditioning

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
DONE = b"data: [DONE]\n\n"


class Served:
    """A gateway with its fakes and a client."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        upstream: FakeUpstream | None = None,
        recommender: FakeRecommender | None = None,
        conditioning: Conditioning | None = None,
        **settings: object,
    ) -> None:
        self.upstream = upstream or FakeUpstream()
        self.recommender = recommender or FakeRecommender()
        self.bundle = bundle
        self.gateway = make_gateway(
            bundle,
            recommender=self.recommender,
            upstream=self.upstream,
            conditioning=conditioning,
            **settings,
        )
        self.client = httpx.Client(timeout=10)

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        return self.client.post(path, json=HELLO if body is None else body, **options)

    def chat(self, **fields: object) -> httpx.Response:
        return self.post("/v1/chat/completions", HELLO | fields)


def serve(
    bundle: Bundle,
    *,
    upstream: FakeUpstream | None = None,
    recommender: FakeRecommender | None = None,
    conditioning: Conditioning | None = None,
    **settings: object,
) -> Iterator[Served]:
    served = Served(bundle, upstream=upstream, recommender=recommender, conditioning=conditioning, **settings)
    with running(served.gateway) as url, served.client as client:
        client.base_url = httpx.URL(url)
        yield served


def anthropic_error(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, whose shape is Anthropic's."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert (set(body), body["type"]) == ({"type", "error"}, "error")
    error: dict[str, Any] = body["error"]
    assert set(error) == {"type", "message"}
    return error


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, whose shape is OpenAI's."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
