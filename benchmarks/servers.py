"""Processes to be measured: started, awaited, their CPU time read, ended with everything below them.

In:  a command line. Out: a `Server` with its URL. Raises ServerFailed with the end of its log when it does
     not start.
"""

import contextlib
import os
import platform
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

START_SECONDS = 900.0
STOP_SECONDS = 20.0
LAUNCHER = "preforch_service.engine.launcher"
"""Ends a command and all processes below it when its parent, this benchmark, ends in whatever way."""


class ServerFailed(RuntimeError):
    """A server did not start, or ended by itself."""


def free_port() -> int:
    """A TCP port that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A running server; `pid` is the root of its processes, None where somebody else started it."""

    name: str
    url: str
    pid: int | None

    def cpu(self) -> float:
        """CPU seconds of all its processes so far; NaN for a server of somebody else."""
        return float("nan") if self.pid is None else sum(map(cpu_seconds, family(self.pid)))


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    port: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    health: str = "/health",
) -> Iterator[Server]:
    """A server at a port of 127.0.0.1, waited for until `health` answers 200; it ends with the block."""
    log = folder / f"{name}.log"
    launched = [sys.executable, "-m", LAUNCHER, str(os.getpid()), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            launched,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
        )
    try:
        server = Server(name, f"http://127.0.0.1:{port}", process.pid)
        wait_until_healthy(server.url + health, process, log)
        print(f"{name} is ready", file=sys.stderr, flush=True)
        yield server
    except Exception:
        # The folder may be gone by the time somebody wants to know why.
        print(f"the end of {log.name}:\n{tail(log)}", file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_healthy(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when the URL answers 200. Raises ServerFailed when the process ends or is late."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            urllib.request.urlopen(url, timeout=5) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.2)
    said = "ended" if process.poll() is not None else f"was not ready after {START_SECONDS:.0f} s"
    raise ServerFailed(f"{log.stem} {said}; the end of its log:\n{tail(log)}")


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])


def family(pid: int) -> list[int]:
    """A process and all living processes below it."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, to the nanosecond; /proc/PID/stat counts ticks of 10 ms."""
    # The clock of a whole process, as clock_getcpuclockid(3) numbers it; Python has no call for it.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def machine(*distributions: str) -> str:
    """One line: what the figures were taken on, and whether something else ran there."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU"
    )
    versions = ", ".join(f"{name} {version(name)}" for name in distributions)
    return (
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {model}; "
        f"Python {platform.python_version()}, "
        f"{versions}. Load average at the start: {os.getloadavg()[0]:.2f}."
    )


def version(distribution: str) -> str:
    """Of an installed distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
