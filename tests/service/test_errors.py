"""Every error status has OpenAI's shape, over the whole application; the engine's own errors too."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fakes import FakeAnswer, FakeUpstream, make_gateway, running
from fastapi import FastAPI
from preforch_models.bundle import Bundle
from preforch_service.app import create_app
from preforch_service.errors import engine_error
from preforch_service.keys import Keys, digest_of
from starlette.testclient import TestClient

KEY, SELDOM, ELSEWHERE = "data-key-0123456789", "seldom-0123456789", "elsewhere-0123456789"
KEYS = Keys.model_validate(
    {
        "keys": [
            {"name": "data", "sha256": digest_of(KEY)},
            {"name": "seldom", "sha256": digest_of(SELDOM), "requests_per_minute": 1},
            {"name": "elsewhere", "sha256": digest_of(ELSEWHERE), "models": []},
        ]
    }
)
PROMPT = {"json": {"prompt": "x"}}


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
def url(bundle: Bundle, upstream: FakeUpstream) -> Iterator[str]:
    with running(
        make_gateway(bundle, upstream=upstream, keys=KEYS, max_body_bytes=2000, receive_timeout=1)
    ) as url:
        yield url


def broken(body: dict[str, Any]) -> FakeAnswer:
    raise RuntimeError("secret")


@pytest.mark.parametrize(
    ("status", "method", "path", "options", "key"),
    [
        (400, "POST", "/v1/completions", {"json": {}}, KEY),
        (401, "POST", "/v1/completions", PROMPT, "wrong"),
        (403, "POST", "/v1/completions", PROMPT, ELSEWHERE),
        (404, "GET", "/nothing", {}, KEY),
        (404, "POST", "/v1/completions", {"json": {"prompt": "x", "model": "y"}}, KEY),
        (405, "GET", "/v1/completions", {}, KEY),
        (413, "POST", "/v1/completions", {"json": {"prompt": "x" * 3000}}, KEY),
        (415, "POST", "/v1/completions", {"content": "{}"}, KEY),
        (429, "GET", "/objectives", {}, SELDOM),
        (500, "POST", "/v1/completions", PROMPT, KEY),
        (503, "POST", "/v1/completions", PROMPT, KEY),
    ],
)
def test_every_status_has_openais_shape(
    url: str, upstream: FakeUpstream, status: int, method: str, path: str, options: dict[str, Any], key: str
) -> None:
    upstream.answer = broken
    upstream.down = status == 503
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=10) as client:
        if status == 429:
            assert client.request(method, path, **options).status_code == 200
        response = client.request(method, path, **options)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert "secret" not in response.text
    needed = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"}
    assert needed.get(status, "X-Request-Id") in response.headers


def test_parameters_that_fastapi_checks_are_a_422_in_the_same_shape(bundle: Bundle) -> None:
    app: FastAPI = create_app(make_gateway(bundle))

    @app.get("/typed")
    async def typed(count: int) -> int:
        return count

    with TestClient(app, base_url="http://localhost") as client:
        response = client.get("/typed?count=x")
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["param"], error["type"], error["code"]) == ("count", "invalid_request_error", None)


COMPLETE = {"message": "m", "type": "BadRequestError", "param": "n", "code": 400}


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (400, {"error": COMPLETE}, COMPLETE),
        (404, {"error": {"message": "m", "code": 404}}, {"message": "m", "code": 404, "param": None}),
        (500, {"error": "boom"}, {"message": "boom", "type": "internal_error"}),
        (422, {"detail": [{"loc": ["n"], "msg": "bad"}]}, {"message": '[{"loc": ["n"], "msg": "bad"}]'}),
        (404, {"detail": "Not Found"}, {"message": "Not Found", "type": "invalid_request_error"}),
        (
            400,
            {"object": "error", "message": "m", "type": "T", "param": None, "code": 400},
            {"message": "m", "type": "T"},
        ),
        (500, b"Internal Server Error", {"message": "Internal Server Error", "code": None}),
        (520, b"", {"message": "the engine answered 520"}),
        (500, b"[]", {"message": "[]"}),
        (500, b"\xff\xfe", {"type": "internal_error"}),
    ],
)
def test_errors_of_the_engine_come_out_in_that_shape(
    url: str, upstream: FakeUpstream, status: int, content: Any, expected: dict[str, object]
) -> None:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    upstream.answer = lambda body: FakeAnswer([raw], status, content_type="text/html")
    for path in ("/v1/completions", "/generate"):
        response = httpx.post(url + path, json={"prompt": "x"}, headers={"X-API-Key": KEY})
        assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error == error | expected


def test_an_error_that_is_complete_stays_as_it_is() -> None:
    raw = json.dumps({"error": COMPLETE}, indent=2).encode()
    assert engine_error(400, raw) is raw
