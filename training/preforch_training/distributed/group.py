"""The processes of a run as each of them sees them: its rank, and calls that all of them carry out together.

In:  rank, size and address by `Place`; jobs, which are module-level functions with picklable arguments.
Out: `together(job, ...)` on rank 0: all ranks run the job, rank 0 gets its own result.

Rank 0 runs the pipeline, holds the lock, reads and writes artifacts and samples. The others wait in
`follow` for its jobs. They wait in a gloo group of its own (`control`): nothing there depends on GPUs, and it
has no timeout that hours of sampling could hit.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, not exported

from preforch_training.distributed.config import Config
from preforch_training.tuning.device_memory import free_memory

P = ParamSpec("P")
T = TypeVar("T")

_COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""Of a step between ranks that all work: rank 0 may write a large checkpoint meanwhile."""
_CONTROL_TIMEOUT = timedelta(days=24)
"""Of a wait for the next job. gloo counts milliseconds in 31 bits."""
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class RankDiedError(OSError):
    """Another rank ended before its time; the message says which and where its log is."""


@dataclass(frozen=True)
class Place:
    """Where a process stands among the others: what torchrun and accelerate put into the environment."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables, which accelerate reads."""
        values = (self.rank, self.size, self.local_rank, self.local_size, self.address, self.port)
        return {name: str(value) for name, value in zip(_VARIABLES, values, strict=True)}


def launched_place(environment: Mapping[str, str] | None = None) -> Place | None:
    """The place that a launcher (torchrun, accelerate) gave this process; None where there was none.

    `environment`: that of this process where it is None. Raises ValueError where only a part is there.
    """
    environment = os.environ if environment is None else environment
    if "RANK" not in environment:
        return None
    missing = [name for name in _VARIABLES if name not in environment and name != "LOCAL_WORLD_SIZE"]
    if missing:
        raise ValueError(f"RANK is set, as a launcher does, but {', '.join(missing)} not; start with --nproc")
    rank, size, local = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    return Place(rank, size, local, local_size, address, port)


@dataclass
class _Group:
    """A group that was joined. `death`: what to say of a rank that died, None while all live."""

    place: Place
    control: dist.ProcessGroup
    config: Config
    death: Callable[[], str | None]
    busy: bool = field(default=False)


_joined: list[_Group] = []
"""None or one, as torch.distributed has one default group a process."""


@contextmanager
def joined(
    place: Place,
    config: Config,
    *,
    store: TCPStore | None = None,
    death: Callable[[], str | None] = lambda: None,
) -> Iterator[None]:
    """Be in the group; returns when all ranks are. `store`: what they meet at; None: what a launcher made.

    On rank 0 the others leave with the end of this, unless it is an error: then they must be ended.
    """
    assert not _joined, "a process is in one group at a time"
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ |= place.environment
    _share_cores(place)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(place.local_rank)
    # -1: as the environment says, where a launcher's ranks meet.
    mine, all_ = (-1, -1) if store is None else (place.rank, place.size)
    dist.init_process_group(backend, timeout=_COLLECTIVE_TIMEOUT, store=store, rank=mine, world_size=all_)
    control = dist.new_group(backend="gloo", timeout=_CONTROL_TIMEOUT)
    assert isinstance(control, dist.ProcessGroup), "every rank is in it"
    _joined.append(_Group(place, control, config, death))
    try:
        yield
        if place.rank == 0 and place.size > 1:
            _send(None)
        dist.destroy_process_group()
    finally:
        _joined.clear()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _share_cores(place: Place) -> None:
    """Threads that wait for each other are many times slower than none."""
    if "OMP_NUM_THREADS" not in os.environ and not torch.cuda.is_available():
        threads = max(1, (os.cpu_count() or 1) // place.local_size)
        torch.set_num_threads(threads)
        # accelerate reads it, and warns where it is missing.
        os.environ["OMP_NUM_THREADS"] = str(threads)


def size() -> int:
    """Number of ranks, 1 without a group."""
    return _joined[0].place.size if _joined else 1


def rank() -> int:
    """This process's rank, 0 without a group. Only rank 0 writes."""
    return _joined[0].place.rank if _joined else 0


def in_job() -> bool:
    """Whether all ranks are in a job, and this one does its part of it."""
    return bool(_joined) and (_joined[0].busy or rank() > 0)


def settings() -> Config:
    """How rank 0 wants models to be trained together."""
    return _joined[0].config if _joined else Config()


def together(job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a job on all ranks and return what it returns on rank 0; a plain call where there is one rank.

    The job is a module-level function. Raises RankDiedError where another rank died meanwhile.
    """
    if size() == 1:
        return job(*args, **kwargs)
    group = _joined[0]
    assert group.place.rank == 0, "only rank 0 gives jobs"
    assert not group.busy, "a job gives no jobs"
    group.busy = True
    try:
        _send((job, args, kwargs, group.config))
        return job(*args, **kwargs)
    except RuntimeError as error:
        # torch says "connection closed by peer" in many words and never whose.
        if (death := group.death()) is not None:
            raise RankDiedError(death) from error
        raise
    finally:
        group.busy = False


def follow() -> None:
    """Ranks above 0: run jobs until rank 0 has no more."""
    group = _joined[0]
    while True:
        message: list[Any] = [None]
        dist.broadcast_object_list(message, src=0, group=group.control)
        if message[0] is None:
            return
        job, args, kwargs, group.config = message[0]
        job(*args, **kwargs)
        del message, job, args, kwargs
        free_memory()


def gather(value: T) -> list[T]:
    """In a job: every rank's value in the order of ranks, on rank 0; elsewhere an empty list."""
    if size() == 1:
        return [value]
    found: list[T | None] | None = [None] * size() if rank() == 0 else None
    dist.gather_object(value, found, dst=0, group=_joined[0].control)
    return found or []  # type: ignore[return-value]  # full where it is rank 0


def broadcast(value: T) -> T:
    """In a job: rank 0's value, on every rank."""
    if size() == 1:
        return value
    message = [value]
    dist.broadcast_object_list(message, src=0, group=_joined[0].control)
    return message[0]


def wait_for_all() -> None:
    """In a job: return when every rank is here."""
    if size() > 1:
        dist.barrier(group=_joined[0].control)


def _send(message: Any) -> None:
    dist.broadcast_object_list([message], src=0, group=_joined[0].control)
