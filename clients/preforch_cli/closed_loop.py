"""Load for `preforch bench` in a closed loop: each client asks again when its last request is answered.

In:  a gateway's address and how much to ask.
Out: a `Measured` for each route that the gateway serves and each number of clients: of this process, the
     network and the gateway together. No request is sent again.
"""

import asyncio
import math
import secrets
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from preforch_client import AsyncClient, BadRequest, PreferenceError
from tqdm import tqdm

Ask = Callable[[AsyncClient, str], Awaitable[object]]


@dataclass(frozen=True)
class Load:
    """`requests` for each number of clients; `max_tokens` of a generated answer; `timeout` in seconds."""

    url: str
    api_key: str | None
    timeout: float
    requests: int
    max_tokens: int

    def client(self) -> AsyncClient:
        """One that reports every error at once."""
        return AsyncClient(self.url, api_key=self.api_key, timeout=self.timeout, max_retries=0)


@dataclass(frozen=True)
class Measured:
    """One route under one number of clients; `latencies` in seconds, of the requests that were answered."""

    route: str
    clients: int
    seconds: float
    latencies: Sequence[float]
    errors: dict[str, int]

    def row(self) -> dict[str, object]:
        """What is shown: milliseconds, requests per second; None where nothing was answered."""
        percentiles = {f"p{percent}": _milliseconds(self.latencies, percent) for percent in (50, 95, 99)}
        return {
            "route": self.route,
            "clients": self.clients,
            "requests_per_second": round(len(self.latencies) / self.seconds, 1),
            **percentiles,
            "answered": len(self.latencies),
            "errors": self.errors,
        }


def _milliseconds(latencies: Sequence[float], percent: int) -> float | None:
    """The smallest latency that so many percent of all do not exceed."""
    if not latencies:
        return None
    return round(1000 * sorted(latencies)[math.ceil(percent / 100 * len(latencies)) - 1], 1)


def measure(load: Load, clients: Sequence[int]) -> list[Measured]:
    """All routes under all numbers of clients. Raises PreferenceError where the very first request fails."""
    return asyncio.run(_measure_all(load, clients))


async def _measure_all(load: Load, clients: Sequence[int]) -> list[Measured]:
    prompts = _prompts()
    served = await _served_routes(load, prompts)
    # Without a terminal nobody looks at it.
    total = len(served) * len(clients) * load.requests
    with tqdm(total=total, unit="request", disable=None, file=sys.stderr, leave=False) as bar:
        return [
            await _measure_route(load, route, ask, number, prompts, bar.update)
            for route, ask in served.items()
            for number in clients
        ]


def _prompts() -> Iterator[str]:
    """Texts without end, unlike those of any other run."""
    run, number = secrets.token_hex(4), 0
    while True:
        number += 1
        yield f"How do I calm a nervous dog? Case {run}, {number}."


async def _served_routes(load: Load, prompts: Iterator[str]) -> dict[str, Ask]:
    """The routes that answer, each asked once, which also warms them up."""

    def weigh(client: AsyncClient, prompt: str) -> Awaitable[object]:
        return client.weights(prompt)

    def generate(client: AsyncClient, prompt: str) -> Awaitable[object]:
        return client.generate(prompt, max_tokens=load.max_tokens)

    async with load.client() as client:
        await weigh(client, next(prompts))
        try:
            await generate(client, next(prompts))
        except BadRequest as error:
            if error.status != 404:
                raise
            return {"/weights": weigh}
    return {"/weights": weigh, "/generate": generate}


async def _measure_route(
    load: Load,
    route: str,
    ask: Ask,
    clients: int,
    prompts: Iterator[str],
    tick: Callable[[], object],
) -> Measured:
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    left = iter(range(load.requests))

    async def work(client: AsyncClient) -> None:
        for _ in left:
            prompt, began = next(prompts), time.perf_counter()
            try:
                await ask(client, prompt)
            except PreferenceError as error:
                errors[_kind(error)] += 1
            else:
                latencies.append(time.perf_counter() - began)
            tick()

    async with AsyncExitStack() as opened:
        # A client each: one pool for all would close what it holds beyond twenty connections.
        asking = [await opened.enter_async_context(load.client()) for _ in range(clients)]
        began = time.perf_counter()
        await asyncio.gather(*map(work, asking))
        seconds = time.perf_counter() - began
    return Measured(route, clients, seconds, latencies, dict(errors))


def _kind(error: PreferenceError) -> str:
    return "without an answer" if error.status is None else f"HTTP {error.status}"
