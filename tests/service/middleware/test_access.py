"""Who may pass, over a real port, with real clients."""

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import openai
import pytest
from fakes import FakeRecommender, FakeUpstream, make_gateway, running
from openai.types.chat import ChatCompletionUserMessageParam
from preforch_models.bundle import Bundle
from preforch_service.app import create_app
from preforch_service.keys import ApiKey, Keys, digest_of, read_keys
from preforch_service.middleware.access import OPEN
from preforch_service.middleware.edge import HEALTH
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Message

DATA, ADMIN = "data-key-0123456789", "admin-0123456789"
LIMITED, ELSEWHERE = "limited-0123456789", "elsewhere-0123456789"
KEYS = Keys.model_validate(
    {
        "keys": [
            {"name": "data", "sha256": digest_of(DATA)},
            {"name": "limited", "sha256": digest_of(LIMITED), "requests_per_minute": 2},
            {"name": "elsewhere", "sha256": digest_of(ELSEWHERE), "models": ["other"], "cache_salt": "own"},
        ],
        "admin": {"sha256": digest_of(ADMIN)},
    }
)
USER: ChatCompletionUserMessageParam = {"role": "user", "content": "hello"}
HELLO = {"messages": [USER]}


class Served:
    """A gateway that asks for keys, and a client without one."""

    client: httpx.Client

    def __init__(self, bundle: Bundle, **settings: object) -> None:
        self.upstream = FakeUpstream()
        self.gateway = make_gateway(
            bundle,
            recommender=FakeRecommender(),
            upstream=self.upstream,
            conditioning=None,
            **({"keys": KEYS} | settings),
        )

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    def with_openai(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)


def serve(bundle: Bundle, **settings: object) -> Iterator[Served]:
    served = Served(bundle, **settings)
    with running(served.gateway) as url, httpx.Client(base_url=url, timeout=10) as client:
        served.client = client
        yield served


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def error_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error


def walk(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of mounted applications included; a mount itself is one too."""
    for route in routes:
        if isinstance(route, Mount):
            yield "GET", f"{prefix}{route.path}/anything"
            yield from walk(route.routes or (), prefix + route.path)
        else:
            assert isinstance(route, Route), f"{route} is of a kind that this test does not know"
            for method in route.methods or ():
                yield method, prefix + route.path


async def status_without_reading(app: Any, method: str, path: str, *headers: tuple[bytes, bytes]) -> int:
    """The answer's status. Fails when the application touches the body."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


def test_every_route_but_the_open_ones_is_a_401_before_its_body_is_read(bundle: Bundle) -> None:
    app = create_app(make_gateway(bundle, upstream=FakeUpstream(), keys=KEYS))
    routes = set(walk(app.routes))
    assert {("POST", "/weights"), ("POST", "/v1/chat/completions"), ("GET", "/v1/models")} <= routes
    statuses = {
        (method, path): asyncio.run(status_without_reading(app, method, path))
        for method, path in {*routes, ("POST", "/nothing"), ("GET", "/docs/"), ("POST", "/admin/reload")}
    }
    passed = {path for (_, path), status in statuses.items() if status != 401}
    files = ("playground.css", "playground.js", "parts.js", "code.js", "gateway.js", "icon.svg")
    pages = {"/", *(f"/playground/{name}" for name in files)}
    docs = {"/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"}
    assert passed == OPEN == {"/livez", "/readyz", "/openapi.json", *docs, *pages}
    assert all(statuses[route] == 200 for route in routes if route[1] in OPEN and route[0] == "GET")
    assert set(HEALTH) <= OPEN


def test_without_keys_only_the_admin_routes_are_closed(bundle: Bundle) -> None:
    for served in serve(bundle, keys=Keys()):
        assert served.client.get("/objectives").status_code == 200
        error_of(served.client.post("/admin/reload", headers=bearer(ADMIN)), 403, "admin_closed")
    for served in serve(bundle, keys=Keys(admin=KEYS.admin)):
        assert served.client.get("/objectives").status_code == 200
        error_of(served.client.post("/admin/reload"), 401, "invalid_api_key")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        bearer("wrong"),
        bearer(ADMIN),
        bearer(digest_of(DATA)),
        {"Authorization": DATA},
        {"Authorization": f"Basic {DATA}"},
        {"X-API-Key": "wrong"},
        {"Authorization": "Bearer wrong", "X-API-Key": DATA},
        {b"Authorization": b"Bearer \xff\xfe"},
    ],
)
def test_a_missing_or_wrong_key_is_a_401(served: Served, headers: Any) -> None:
    response = served.client.post("/weights", json={"prompt": "x"}, headers=headers)
    error_of(response, 401, "invalid_api_key")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["X-Request-Id"]


@pytest.mark.parametrize("headers", [bearer(DATA), {"Authorization": f"bearer  {DATA}"}, {"X-API-Key": DATA}])
def test_a_known_key_passes(served: Served, headers: dict[str, str]) -> None:
    assert served.client.post("/weights", json={"prompt": "x"}, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/admin", "/admin/reload", "/admin/", "/%61dmin/reload"])
def test_admin_routes_want_the_admin_key(served: Served, path: str) -> None:
    for headers in ({}, bearer(DATA)):
        error_of(served.client.post(path, headers=headers), 401, "invalid_api_key")
    assert served.client.post(path, headers=bearer(ADMIN)).status_code in (404, 422)


def test_a_key_over_its_rate_waits_and_the_others_do_not(served: Served) -> None:
    for _ in range(2):
        assert served.client.get("/objectives", headers=bearer(LIMITED)).status_code == 200
    response = served.client.get("/objectives", headers=bearer(LIMITED))
    error_of(response, 429, "rate_limit_exceeded")
    assert 1 <= int(response.headers["Retry-After"]) <= 61
    assert served.client.get("/objectives", headers=bearer(DATA)).status_code == 200
    assert served.client.get("/readyz", headers=bearer(LIMITED)).status_code == 200


def test_a_key_uses_only_its_models(served: Served) -> None:
    for path, body in (
        ("/v1/chat/completions", HELLO),
        ("/v1/completions", {"prompt": "x"}),
        ("/generate", {"prompt": "x"}),
    ):
        error = error_of(
            served.client.post(path, json=body, headers=bearer(ELSEWHERE)), 403, "model_not_found"
        )
        assert (error["param"], "'tiny'" in error["message"]) == ("model", True)
    assert served.upstream.bodies == []
    assert served.client.get("/v1/models", headers=bearer(ELSEWHERE)).json()["data"] == []
    assert len(served.client.get("/v1/models", headers=bearer(DATA)).json()["data"]) == 1


def test_the_engine_gets_a_salt_and_never_the_key(served: Served) -> None:
    for path, body in (("/v1/chat/completions", HELLO), ("/v1/completions", {"prompt": "x"})):
        assert served.client.post(path, json=body, headers=bearer(DATA)).status_code == 200
    assert {body["cache_salt"] for body in served.upstream.bodies} == {KEYS.keys[0].salt}
    assert DATA not in json.dumps(served.upstream.bodies)
    error = served.client.post(
        "/v1/completions", json={"prompt": "x", "cache_salt": "y"}, headers=bearer(DATA)
    )
    error_of(error, 400, "field_not_allowed")


def test_a_gateway_without_keys_sets_no_salt(bundle: Bundle) -> None:
    for served in serve(bundle, keys=Keys()):
        served.client.post("/v1/completions", json={"prompt": "x"})
        assert "cache_salt" not in served.upstream.bodies[0]


def test_no_key_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    served.upstream.answer = lambda body: 1 / 0  # type: ignore[return-value,assignment]
    assert (
        served.client.post("/v1/completions", json={"prompt": "x"}, headers=bearer(DATA)).status_code == 500
    )
    assert served.client.get("/objectives", headers=bearer("wrong-0123456789")).status_code == 401
    ours = [
        record.getMessage() + (record.exc_text or "")
        for record in caplog.records
        if "http" not in record.name
    ]
    assert any("failed" in line for line in ours)
    assert not any(DATA in line or "wrong-0123456789" in line for line in ours)


def test_openais_client_raises_its_own_errors(served: Served) -> None:
    with served.with_openai("wrong") as client, pytest.raises(openai.AuthenticationError) as wrong:
        client.models.list()
    assert wrong.value.code == "invalid_api_key"
    with served.with_openai(ELSEWHERE) as client, pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="tiny", messages=[USER])
    with served.with_openai(LIMITED) as client:
        for _ in range(2):
            assert client.chat.completions.create(model="tiny", messages=[USER]).choices
        with pytest.raises(openai.RateLimitError) as limited:
            client.chat.completions.create(model="tiny", messages=[USER])
    assert int(limited.value.response.headers["Retry-After"]) >= 1


def test_pages_of_other_origins_are_answered_only_where_the_operator_says(bundle: Bundle) -> None:
    ask = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    more = ask | {"Access-Control-Request-Headers": "authorization,x-preference-weights,x-stainless-os"}
    for served in serve(bundle):
        assert served.client.options("/weights", headers=ask).status_code == 401
        response = served.client.get("/objectives", headers=bearer(DATA) | {"Origin": "https://a.example"})
        assert "access-control-allow-origin" not in response.headers
    for served in serve(bundle, cors_origins=("https://a.example",)):
        response = served.client.options("/weights", headers=more)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://a.example"
        assert "x-stainless-os" in response.headers["access-control-allow-headers"]
        stranger = served.client.options("/weights", headers=more | {"Origin": "https://b.example"})
        error_of(stranger, 400, "cors_refused")
        assert "access-control-allow-origin" not in stranger.headers
        refused = served.client.get("/objectives", headers={"Origin": "https://a.example"})
        error_of(refused, 401, "invalid_api_key")
        assert refused.headers["access-control-allow-origin"] == "https://a.example"
        exposed = refused.headers["access-control-expose-headers"].split(", ")
        assert {"X-Preference-Weights", "X-Preference-Applied"} <= set(exposed)


def test_a_key_is_found_wherever_it_stands() -> None:
    many = ",".join(f"k{i}:key-number-{i:06}" for i in range(50))
    keys = read_keys(None, {"PREFORCH_API_KEYS": many})
    found = [keys.find(f"key-number-{i:06}") for i in range(50)]
    assert [key.name for key in found if isinstance(key, ApiKey)] == [f"k{i}" for i in range(50)]
