"""Processes as the kernel shows them."""

import time
from collections.abc import Callable
from pathlib import Path


def stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and process group, or None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1]), int(fields[2])


def alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    found = stat(pid)
    return found is not None and found[0] not in "ZX"


def children(pid: int) -> set[int]:
    """All living processes below a process."""
    parents = {
        int(entry.name): stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()
    }
    below: set[int] = set()
    grown = {pid}
    while grown:
        grown = {
            p for p, found in parents.items() if found and found[1] in grown and found[0] not in "ZX"
        } - below
        below |= grown
    return below


def title(pid: int) -> str:
    """The command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def engine_server(gateway: int) -> int:
    """vLLM's API server below a gateway's process. The engine's processes are a group of their own."""
    commands = {pid: title(pid) for pid in children(gateway)}
    return next(pid for pid, line in commands.items() if "--uds" in line and "engine.launcher" not in line)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()
