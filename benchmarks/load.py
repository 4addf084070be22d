"""Load generator, a process of its own: it shares neither event loop nor interpreter with what it measures.

In:  plans on stdin, one per line. Out: results on stdout, one per line. Ends with its stdin. Closed loop:
     each of `clients` sends its next request when the last one has been answered. Anything but 200 is fatal.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from preforch_models.objectives import Record

TOKENS = re.compile(rb'"(?:completion|output)_tokens":\s*(\d+)')


class Plan(Record):
    """Requests to send. `keep`: the answers are wanted, not only their times."""

    url: str
    bodies: tuple[dict[str, Any], ...]
    clients: int
    keep: bool = False


class Result(Record):
    """Times in seconds, in the order of the bodies. `events` and `tokens` are sums over all answers.

    `first`: to the first byte of the body, which for a stream comes with the first token.
    """

    seconds: float
    first: tuple[float, ...]
    whole: tuple[float, ...]
    events: int
    tokens: int
    sources: dict[str, int]
    answers: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Reply:
    """Status, body and times of one answer."""

    first: float
    whole: float
    content: bytes
    source: str

    def tokens(self) -> int:
        """Generated tokens, by the usage that the engine reports last."""
        found = TOKENS.findall(self.content)
        return int(found[-1]) if found else 0


async def ask(session: aiohttp.ClientSession, url: str, body: bytes) -> Reply:
    """Send one request. Raises RuntimeError for anything but 200."""
    started = time.perf_counter()
    first, content = 0.0, bytearray()
    async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
        async for piece in response.content.iter_any():
            first = first or time.perf_counter() - started
            content += piece
    whole = time.perf_counter() - started
    if response.status != 200:
        raise RuntimeError(f"{url} answered {response.status}: {bytes(content[:500])!r}")
    return Reply(first, whole, bytes(content), response.headers.get("X-Preference-Source", "none"))


async def carry_out(plan: Plan) -> Result:
    """Send all requests of a plan, `clients` of them at a time."""
    waiting = iter(list(enumerate(json.dumps(body).encode() for body in plan.bodies)))
    replies: dict[int, Reply] = {}

    async def client(session: aiohttp.ClientSession) -> None:
        for number, body in waiting:
            replies[number] = await ask(session, plan.url, body)

    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.clients):
                group.create_task(client(session))
        seconds = time.perf_counter() - started
    ordered = [replies[number] for number in range(len(plan.bodies))]
    return Result(
        seconds=seconds,
        first=tuple(reply.first for reply in ordered),
        whole=tuple(reply.whole for reply in ordered),
        # JSON escapes line ends, so that an empty line ends an event and nothing else.
        events=sum(reply.content.count(b"\n\n") for reply in ordered),
        tokens=sum(reply.tokens() for reply in ordered),
        sources=Counter(reply.source for reply in ordered),
        answers=tuple(json.loads(reply.content) for reply in ordered) if plan.keep else (),
    )


class Load:
    """The other end: a running load generator."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __call__(self, plan: Plan) -> Result:
        """Carry out a plan.

        Raises RuntimeError when a request failed; the generator has said which on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(plan.model_dump_json() + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator ended with exit code {self._process.wait()}")
        return Result.model_validate_json(line)


@contextmanager
def load_generator() -> Iterator[Load]:
    """A load generator in a process of its own, which ends with the block."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Load(process)


def main() -> None:
    """Carry out plans until stdin ends."""
    for line in sys.stdin:
        print(asyncio.run(carry_out(Plan.model_validate_json(line))).model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
