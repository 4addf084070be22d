"""Two engines behind one gateway: real HTTP servers that answer, refuse, break off or hang as wanted."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from fakes import CHAT, FakeAnswer, FakeUpstream, chunk, policy_card, running_app
from preforch_models.context import ContextFormat, objective_tokens
from preforch_service.conditioning import conditioner_of
from preforch_service.conditioning.rendering import PROBE
from preforch_service.engine.pool import Member, Pool
from preforch_service.engine.readiness import Readiness
from preforch_service.engine.upstream import AiohttpUpstream, UpstreamDown, UpstreamLate, read_all
from preforch_service.telemetry.metrics import Metrics
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

PATH = "/v1/chat/completions"
HELLO = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream")]
FORM = ContextFormat(objectives=("helpful", "harmless", "humor"))


class FakeServer:
    """An engine over HTTP.

    `mood` says how it meets generations: answer, full, failing, cut, cut late, hang.
    """

    def __init__(self) -> None:
        self.mood = "answer"
        self.healthy = True
        self.generations = 0
        self.running = 0
        # Whether the probe gets no answer, and how many tokens it makes between two looks at its counters.
        self.late = False
        self.checks = 0
        self.works = 0
        self.tokens = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = json.loads(await request.body() or b"{}")
        if scope["path"] == "/health":
            self.checks += 1
            await self._send(send, 200 if self.healthy else 503, b"")
        elif scope["path"] == "/tokenize":
            weights = body["chat_template_kwargs"]["weights"].values()
            strings = [s for pair in zip(objective_tokens(3), map(str, weights), strict=True) for s in pair]
            await self._send(send, 200, json.dumps({"token_strs": strings}).encode())
        elif scope["path"] == "/metrics":
            self.tokens += self.works
            prompt = f'vllm:prompt_tokens_total{{engine="0"}} {self.tokens}.0'
            text = f"# HELP\n{prompt}\nvllm:generation_tokens_total 7\n"
            await self._send(send, 200, text.encode())
        elif body["messages"][0]["content"] == PROBE and self.late:
            while (await receive())["type"] != "http.disconnect":
                pass
        elif body["messages"][0]["content"] == PROBE:
            await self._send(send, 200, json.dumps(CHAT).encode())
        else:
            self.generations += 1
            self.running += 1
            try:
                await self._generate(receive, send)
            finally:
                self.running -= 1

    async def _send(self, send: Send, status: int, body: bytes) -> None:
        await send({"type": "http.response.start", "status": status, "headers": JSON})
        await send({"type": "http.response.body", "body": body})

    async def _generate(self, receive: Receive, send: Send) -> None:
        if self.mood in ("answer", "full", "failing"):
            status = {"answer": 200, "full": 503, "failing": 500}[self.mood]
            await self._send(send, status, json.dumps(CHAT).encode())
            return
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        if self.mood == "cut late":
            await send({"type": "http.response.body", "body": chunk("a"), "more_body": True})
        # uvicorn closes the connection of an application that returns before its answer is complete.
        if self.mood.startswith("cut"):
            return
        while (await receive())["type"] != "http.disconnect":
            pass


class Engines:
    """A pool of real clients; `servers` by the names of the members, in order.

    No server is a dead address.
    """

    def __init__(self, addresses: dict[str, str], *, first_byte: float = 30, timeout: float = 10) -> None:
        self.metrics = Metrics()
        upstreams = {
            name: AiohttpUpstream(url, first_byte_timeout=first_byte) for name, url in addresses.items()
        }
        self.pool = Pool(upstreams, metrics=self.metrics)
        card = policy_card(FORM)
        self.readiness = Readiness(
            self.pool,
            model="tiny",
            card=card,
            conditioner=conditioner_of(card),
            metrics=self.metrics,
            timeout=timeout,
        )

    def member(self, name: str) -> Member:
        return next(member for member in self.pool.members if member.name == name)

    def value(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(metric, labels) or 0

    def up(self) -> dict[str, float]:
        return {
            member.name: self.value("preforch_upstream_up", upstream=member.name)
            for member in self.pool.members
        }

    async def ask(self) -> bytes:
        return await read_all(await self.pool.request("POST", PATH, HELLO))


@asynccontextmanager
async def connected(addresses: dict[str, str], **options: float) -> AsyncIterator[Engines]:
    """Engines that have been checked once."""
    engines = Engines(addresses, **options)
    try:
        await engines.readiness.check()
        yield engines
    finally:
        await engines.pool.close()


@pytest.fixture
def one() -> FakeServer:
    return FakeServer()


@pytest.fixture
def two() -> FakeServer:
    return FakeServer()


@pytest.fixture
def addresses(one: FakeServer, two: FakeServer) -> Iterator[dict[str, str]]:
    with running_app(one) as first, running_app(two) as second:
        yield {"one": first, "two": second}


async def until(condition: object) -> None:
    """Wait until a condition holds."""
    assert callable(condition)
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def test_requests_go_where_the_fewest_are_and_in_turn_where_that_is_equal(
    addresses: dict[str, str], one: FakeServer, two: FakeServer
) -> None:
    async def check() -> None:
        async with connected(addresses) as engines:
            assert engines.up() == {"one": 1, "two": 1}
            for _ in range(6):
                await engines.ask()
            assert (one.generations, two.generations) == (3, 3)
            one.mood = two.mood = "hang"
            tasks = [asyncio.create_task(engines.ask()) for _ in range(5)]
            await until(lambda: one.running + two.running == 5)
            assert {one.running, two.running} == {2, 3}
            in_flight = [engines.value("preforch_upstream_in_flight", upstream=name) for name in addresses]
            assert in_flight == [one.running, two.running]
            for task in tasks:
                task.cancel()
            await until(lambda: one.running + two.running == 0)
            assert [member.in_flight for member in engines.pool.members] == [0, 0]
            assert one.generations + two.generations == 11, "what was cancelled is not tried again"

    asyncio.run(check())


def test_a_failure_before_the_first_byte_is_tried_once_on_another_and_the_engine_is_down_until_its_check(
    addresses: dict[str, str], one: FakeServer, two: FakeServer
) -> None:
    async def check() -> None:
        async with connected(addresses) as engines:
            one.mood = "cut"
            for _ in range(2):
                assert json.loads(await engines.ask()) == CHAT
            assert one.generations == 1
            assert engines.up() == {"one": 0, "two": 1}
            assert engines.value("preforch_upstream_failures_total", reason="broken") == 1
            assert engines.readiness.blocked is None
            for _ in range(4):
                await engines.ask()
            assert one.generations == 1, "it gets nothing before its health check"
            one.mood = "answer"
            assert await engines.readiness.check()
            assert engines.up() == {"one": 1, "two": 1}
            one.mood = two.mood = "cut"
            with pytest.raises(UpstreamDown):
                await engines.ask()
            assert (one.generations, engines.pool.blocked) == (2, "the engine is down")

    asyncio.run(check())


def test_nothing_is_tried_again_after_the_first_byte(
    addresses: dict[str, str], one: FakeServer, two: FakeServer
) -> None:
    async def check() -> None:
        async with connected(addresses) as engines:
            one.mood = two.mood = "cut late"
            answer = await engines.pool.request("POST", PATH, HELLO)
            pieces = answer.chunks()
            assert await anext(pieces) == chunk("a")
            with pytest.raises(UpstreamDown):
                await anext(pieces)
            answer.close()
            assert one.generations + two.generations == 1
            assert sorted(engines.up().values()) == [0, 1]

    asyncio.run(check())


@pytest.mark.parametrize("mood", ["full", "failing"])
def test_an_error_status_is_tried_on_another_and_passed_on_when_that_fails_too(
    addresses: dict[str, str], one: FakeServer, two: FakeServer, mood: str
) -> None:
    async def check() -> None:
        async with connected(addresses) as engines:
            one.mood = mood
            for _ in range(4):
                assert (await engines.pool.request("POST", PATH, HELLO)).status == 200
            two.mood = mood
            answer = await engines.pool.request("POST", PATH, HELLO)
            assert answer.status == {"full": 503, "failing": 500}[mood]
            assert [member.suspect for member in engines.pool.members] == [mood == "failing"] * 2

    asyncio.run(check())


def test_an_engine_that_says_nothing_is_late_and_is_looked_at_more_closely(one: FakeServer) -> None:
    async def check(address: str) -> None:
        async with connected({"one": address}, first_byte=0.3) as engines:
            one.mood = "hang"
            with pytest.raises(UpstreamLate, match=r"nothing for 0\.3 s"):
                await engines.ask()
            await until(lambda: one.running == 0)
            assert engines.member("one").suspect
            assert await engines.readiness.check(), "it does generate"
            assert not engines.member("one").suspect

    with running_app(one) as address:
        asyncio.run(check(address))


@pytest.mark.parametrize("first_byte", [30, 0.2])
def test_an_engine_that_is_late_is_busy_while_its_counters_move_and_hangs_when_they_do_not(
    one: FakeServer, first_byte: float
) -> None:
    async def check(address: str) -> None:
        async with connected({"one": address}, timeout=0.3, first_byte=first_byte) as engines:
            engines.member("one").suspect = one.late = True
            one.works = 5
            for _ in range(3):
                assert await engines.readiness.check()
            one.works = 0
            assert not await engines.readiness.check()
            assert engines.readiness.blocked == "the engine does not answer"
            one.late = False
            assert await engines.readiness.check()

    with running_app(one) as address:
        asyncio.run(check(address))


def test_an_engine_that_hangs_does_not_hold_up_the_checks_of_another(
    one: FakeServer, addresses: dict[str, str]
) -> None:
    async def check() -> None:
        async with connected(addresses, timeout=20) as engines:
            watching = asyncio.create_task(engines.readiness.watch())
            engines.member("one").suspect = one.late = True
            await asyncio.sleep(1.5)
            engines.pool.mark(engines.member("two"), "the engine is down")
            async with asyncio.timeout(5):
                await until(lambda: engines.member("two").blocked is None)
            watching.cancel()

    asyncio.run(check())


def test_checks_that_are_asked_for_at_once_are_one(one: FakeServer) -> None:
    async def check(address: str) -> None:
        async with connected({"one": address}, timeout=2) as engines:
            before = one.checks
            await asyncio.gather(*(engines.readiness.check() for _ in range(20)))
            assert one.checks == before + 1

    with running_app(one) as address:
        asyncio.run(check(address))


def test_a_dead_address_takes_nothing_and_the_gateway_is_ready_with_the_other(one: FakeServer) -> None:
    async def check(address: str) -> None:
        async with connected({"dead": "http://127.0.0.1:9", "one": address}) as engines:
            assert engines.up() == {"dead": 0, "one": 1}
            assert engines.readiness.blocked is None
            for _ in range(3):
                assert json.loads(await engines.ask()) == CHAT
            one.healthy = False
            assert not await engines.readiness.check()
            with pytest.raises(UpstreamDown, match="the engine is loading; the engine is down"):
                await engines.ask()

    with running_app(one) as address:
        asyncio.run(check(address))


@pytest.mark.parametrize("begun", [True, False])
def test_the_head_of_a_stream_is_no_sign_of_life(begun: bool) -> None:
    """vLLM's server sends one, whatever its core does."""

    async def check() -> None:
        answer = FakeAnswer([], content_type="text/event-stream", begun=begun)
        pool = Pool({"one": FakeUpstream(lambda body: answer)}, metrics=Metrics())
        (member,) = pool.members
        pool.mark(member, None)
        member.in_flight, member.last_byte = 1, monotonic() - 100
        await pool.request("POST", PATH, HELLO)
        assert member.silent(50) == (not begun)

    asyncio.run(check())
