"""Every answer has a request id, which the engine, the log and the client agree on."""

import asyncio
import re
from collections.abc import Iterator

import httpx
import pytest
from fakes import FakeUpstream, make_gateway, running
from preforch_models.bundle import Bundle
from preforch_service.gateway import Gateway
from preforch_service.keys import ApiKey
from preforch_service.middleware.observer import Observer
from preforch_service.telemetry.logs import AccessLog
from preforch_service.telemetry.metrics import Metrics
from starlette.types import Message, Receive, Scope, Send

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
def gateway(bundle: Bundle, upstream: FakeUpstream) -> Gateway:
    return make_gateway(bundle, upstream=upstream, max_body_bytes=1024)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with running(gateway) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def test_every_answer_names_its_request(
    client: httpx.Client, upstream: FakeUpstream, gateway: Gateway
) -> None:
    def fail(body: object) -> None:
        raise RuntimeError

    answers = {
        200: [
            client.get("/livez"),
            client.get("/docs"),
            client.get("/v1/models"),
            client.post("/generate", json=HELLO),
        ],
        400: [client.post("/weights", json={}), client.get("/objectives", headers={"Host": "elsewhere"})],
        404: [client.get("/nowhere")],
        405: [client.get("/weights")],
        413: [client.post("/weights", json={"prompt": "x" * 2000})],
        415: [client.post("/weights", content=b"{}")],
    }
    upstream.answer = fail  # type: ignore[assignment]
    answers[500] = [client.post("/v1/chat/completions", json=HELLO)]
    gateway.readiness.draining = True
    answers[503] = [client.get("/readyz"), client.get("/objectives")]
    for status, responses in answers.items():
        for response in responses:
            assert response.status_code == status, response.text
            assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-Id"])
            assert len(response.headers.get_list("X-Request-Id")) == 1


def test_a_client_may_name_its_request_within_an_alphabet(client: httpx.Client) -> None:
    assert client.get("/nowhere", headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"] == "mine-1"
    for wrong in ("a b", "x" * 129, "", "<b>"):
        given = client.get("/nowhere", headers={"X-Request-Id": wrong}).headers["X-Request-Id"]
        assert re.fullmatch(r"[0-9a-f]{32}", given)


def test_the_name_of_the_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["caller"] = ApiKey(name="team", sha256="0" * 64)

    async def receive() -> Message:
        return {}

    async def send(_: Message) -> None: ...

    observer = Observer(app, metrics=Metrics(), access_log=AccessLog(), tracing=None)
    with caplog.at_level("INFO", logger="preforch_service.access"):
        scope: Scope = {"type": "http", "path": "/x", "method": "MADE-UP", "headers": []}
        asyncio.run(observer(scope, receive, send))
    (record,) = caplog.records
    facts = record.__dict__["facts"]
    assert (facts["key"], facts["method"], facts["route"]) == ("team", "_OTHER", "other")


def test_the_engine_gets_the_id_and_no_header_of_the_client(
    client: httpx.Client, upstream: FakeUpstream
) -> None:
    headers = {
        "X-Request-Id": "mine",
        "Authorization": "Bearer key",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
    }
    client.post("/v1/chat/completions", json=HELLO, headers=headers)
    assert re.fullmatch(r"mine-[0-9a-f]{8}", upstream.bodies[0]["request_id"])
    assert upstream.headers == [{}]
