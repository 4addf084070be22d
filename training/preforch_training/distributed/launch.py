"""`--nproc N`: this process becomes rank 0 and starts the others as its children.

In:  the number of ranks and a folder for their logs.
Out: a group of N processes that ends with this one, however it ends; when a child dies, this process ends
     with an error that says where the child's log is.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, not exported

from preforch_training.distributed.config import Config
from preforch_training.distributed.group import Place, RankDiedError, joined, launched_place

_ADDRESS = "127.0.0.1"
_LAST_LINES = 15
_GRACE_SECONDS = 15.0
"""How long rank 0 may take to notice by itself that a rank died; a collective on GPUs never does."""
_END_SECONDS = 60.0
"""How long a rank with no more to do may take to end; then it is ended, since the run is whole."""
_LOOK_SECONDS = 1.0
_START_TIMEOUT = timedelta(minutes=30)


@contextmanager
def ranks(count: int | None, config: Config, *, logs: Path) -> Iterator[None]:
    """The group that `count` asks for, or a launcher's, or none. Raises ValueError where both ask.

    One process that sees several GPUs is a group of one: trainers would spread over the GPUs by threads.
    """
    place = launched_place()
    if place is not None:
        if count is not None:
            raise ValueError(f"--nproc {count} and a launcher's WORLD_SIZE {place.size}: choose one of them")
        with joined(place, config):
            yield
    elif (count or 1) > 1:
        with _children(check_count(count or 1), config, logs):
            yield
    elif torch.cuda.device_count() > 1:
        store = TCPStore(_ADDRESS, 0, 1, is_master=True)
        with joined(Place(0, 1, 0, 1, _ADDRESS, store.port), config, store=store):
            yield
    else:
        yield


def check_count(count: int) -> int:
    """The number of ranks. Raises ValueError where there are fewer GPUs, but some."""
    devices = torch.cuda.device_count()
    if devices and count > devices:
        raise ValueError(f"--nproc {count}: this machine shows {devices} GPUs, one for each rank is needed")
    return count


@contextmanager
def _children(count: int, config: Config, logs: Path) -> Iterator[None]:
    # Port 0: the system chooses a free one.
    store = TCPStore(_ADDRESS, 0, count, is_master=True, wait_for_workers=False, timeout=_START_TIMEOUT)
    logs.mkdir(parents=True, exist_ok=True)
    places = [Place(rank, count, rank, count, _ADDRESS, store.port) for rank in range(count)]
    children = Children(places[1:], logs)
    try:
        with joined(places[0], config, store=store, death=children.death):
            yield
        children.wait()
    finally:
        children.kill()


class Children:
    """The other ranks. A thread ends this process when one of them dies and nothing else has noticed."""

    def __init__(self, places: list[Place], logs: Path) -> None:
        self._closed = threading.Event()
        self._children = {place.rank: _start(place, logs / f"rank-{place.rank}.log") for place in places}
        self._logs = {place.rank: logs / f"rank-{place.rank}.log" for place in places}
        threading.Thread(target=self._watch, daemon=True).start()

    def death(self) -> str | None:
        """What to say of a rank that died, waiting a little for it; None where all live."""
        deadline = time.monotonic() + _LOOK_SECONDS
        while (found := self._dead()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def wait(self) -> None:
        """Return when all have ended, or dawdled for long. Raises RankDiedError when one did not end well."""
        self._closed.set()
        for child in self._children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=_END_SECONDS)
        if (death := self._dead()) is not None:
            raise RankDiedError(death)

    def kill(self) -> None:
        """End them at once."""
        self._closed.set()
        for child in self._children.values():
            child.kill()
        for child in self._children.values():
            child.wait()

    def _dead(self) -> str | None:
        for rank, child in self._children.items():
            status = child.poll()
            if status is not None and (status != 0 or not self._closed.is_set()):
                return f"rank {rank} ended with status {status}; {last_words(self._logs[rank])}"
        return None

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            if (death := self._dead()) is None:
                continue
            if not self._closed.wait(_GRACE_SECONDS):
                print(f"preforch: error: {death}", file=sys.stderr, flush=True)
                # The other ranks and the sampler's child end with this process.
                os._exit(1)


def _start(place: Place, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "preforch_training.distributed.worker", str(os.getpid())],
            env={**os.environ, **place.environment, "TQDM_DISABLE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def last_words(log: Path) -> str:
    """Where a log is, and its last lines."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
    return "\n".join([f"{log} ends with:", *lines]) if lines else f"{log} is empty"
