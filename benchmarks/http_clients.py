"""What a streamed chunk costs in the client that reads it (aiohttp, httpx, httpx2; asyncio's loop, uvloop).

In:  nothing; a server of Server-Sent Events is started as a process of its own, on a Unix socket.
Out: a Markdown table on stdout: CPU seconds of the reading process per 1,000 chunks, mean with a 95% t
     interval.

    python benchmarks/http_clients.py --streams 16 --chunks 200 --repeats 5
"""

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from importlib import metadata
from pathlib import Path

import aiohttp
import httpx
import httpx2
import numpy as np
import scipy.stats
import uvloop

Reader = Callable[[str, int], Coroutine[None, None, int]]
Runner = Callable[[Coroutine[None, None, int]], int]
CHOICE = {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}
EVENT = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [CHOICE],
}
CHUNK = b"data: " + json.dumps(EVENT).encode() + b"\n\n"
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; or be the server of a measurement."""
    options = parse(argv)
    if options.serve:
        asyncio.run(serve(options.serve, chunks=options.chunks, pause=options.pause))
    else:
        print("\n".join(table(options)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="CPU seconds per 1,000 streamed chunks, by HTTP client and loop."
    )
    parser.add_argument("--streams", type=int, default=16, help="read at once")
    parser.add_argument("--chunks", type=int, default=200, help="per stream")
    parser.add_argument("--pause", type=float, default=0.005, help="seconds between two chunks of a stream")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of every way, in turns; at least 2")
    parser.add_argument("--serve", metavar="SOCKET", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.repeats < 2:
        parser.error(f"--repeats is {options.repeats}; an interval needs at least 2")
    return options


async def serve(path: str, *, chunks: int, pause: float) -> None:
    """Answer every request with so many chunks, each in a write of its own."""
    framed = b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        for _ in range(chunks):
            writer.write(framed)
            await asyncio.sleep(pause)
        writer.write(b"0\r\n\r\n")
        writer.close()

    async with await asyncio.start_unix_server(answer, path) as server:
        print("serving", flush=True)
        await server.serve_forever()


async def with_aiohttp(path: str, streams: int) -> int:
    """Read all streams at the same time; bytes received."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path, limit=0)) as session:

        async def one() -> int:
            async with session.get("http://engine/") as response:
                return sum([len(chunk) async for chunk in response.content.iter_any()])

        return sum(await asyncio.gather(*(one() for _ in range(streams))))


async def with_httpx(path: str, streams: int) -> int:
    """Read all streams at the same time; bytes received."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path, limits=limits)) as client:

        async def one() -> int:
            async with client.stream("GET", "http://engine/") as response:
                return sum([len(chunk) async for chunk in response.aiter_raw()])

        return sum(await asyncio.gather(*(one() for _ in range(streams))))


async def with_httpx2(path: str, streams: int) -> int:
    """Read all streams at the same time; bytes received."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=path, limits=limits)) as client:

        async def one() -> int:
            async with client.stream("GET", "http://engine/") as response:
                return sum([len(chunk) async for chunk in response.aiter_raw()])

        return sum(await asyncio.gather(*(one() for _ in range(streams))))


async def with_nothing(path: str, streams: int) -> int:
    """asyncio's own streams, no HTTP parsed: what the loop alone costs."""

    async def one() -> int:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\nHost: engine\r\n\r\n")
        total = 0
        while piece := await reader.read(65536):
            total += len(piece)
        writer.close()
        return total

    return sum(await asyncio.gather(*(one() for _ in range(streams))))


LOOPS: dict[str, Runner] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
READERS: dict[str, Reader] = {
    "aiohttp": with_aiohttp,
    "httpx": with_httpx,
    "httpx2": with_httpx2,
    "no HTTP parsed": with_nothing,
}


def read(reader: Reader, run: Runner, path: str, options: argparse.Namespace) -> float:
    """CPU seconds per 1,000 chunks. Fails when bytes are missing."""
    begun = time.process_time()
    received = run(reader(path, options.streams))
    spent = time.process_time() - begun
    chunks: int = options.streams * options.chunks
    if received < chunks * len(CHUNK):
        raise RuntimeError(f"received {received} bytes of {chunks * len(CHUNK)}")
    return spent / chunks * 1000


def measure(options: argparse.Namespace) -> dict[tuple[str, str], list[float]]:
    """All ways in turns, after a round that is not counted."""
    found: dict[tuple[str, str], list[float]] = {(name, loop): [] for name in READERS for loop in LOOPS}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        command = [sys.executable, __file__, "--serve", path, "--chunks", str(options.chunks)]
        with subprocess.Popen([*command, "--pause", str(options.pause)], stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()
            try:
                for turn in range(options.repeats + 1):
                    for name, loop in found:
                        spent = read(READERS[name], LOOPS[loop], path, options)
                        if turn:
                            found[name, loop].append(spent)
            finally:
                server.kill()
    return found


def table(options: argparse.Namespace) -> list[str]:
    """The lines of the table, and what was measured."""
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("aiohttp", "httpx", "httpx2", "uvloop")
    )
    lines = [
        f"{options.streams} streams of {options.chunks} chunks of {len(CHUNK)} bytes, "
        f"{options.repeats} rounds; "
        f"Python {platform.python_version()}, {versions}",
        "",
        "| client | loop | CPU s per 1,000 chunks |",
        "|---|---|---|",
    ]
    for (name, loop), values in measure(options).items():
        mean = float(np.mean(values))
        half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values))
        lines.append(f"| {name} | {loop} | {mean:.4f} ± {half:.4f} |")
    return lines


if __name__ == "__main__":
    main()
