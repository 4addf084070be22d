"""Whether engines have room, before any is started.

In:  a policy, how its engines run, and the memory that is free.
Out: nothing, or NoRoomError, which says what is needed, what is free, and which setting to change.

Whether a GPU's share leaves room for the key-value cache of one prompt vLLM works out itself once it has
loaded the weights, and its error says so.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from preforch_training.sampling.settings import Dtype, Engine

GIB = 2**30
ENGINE_BYTES = 1.5 * GIB
"""Of one process of vLLM on a CPU besides weights and key-value cache (resident, measured: 0.7 GiB after the
start, 1.3 GiB with 8,000 responses under way)."""
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
_ASK_GPUS = """
import json, torch
print(json.dumps([torch.cuda.mem_get_info(i) for i in range(torch.cuda.device_count())]))
"""
_UNLIMITED = 2**60
"""A cgroup without a limit names a number near 2^63."""


class NoRoomError(OSError):
    """There is less memory than an engine needs."""


@dataclass(frozen=True)
class Gpu:
    """One device; bytes."""

    free: int
    total: int


def check_room(policy: Path, engine: Engine) -> None:
    """Compare what the engines of a policy need with what this machine has free. Raises NoRoomError."""
    if torch.cuda.is_available():
        check_gpus(policy, engine, weights=weight_bytes(policy, engine.dtype), gpus=visible_gpus())
    else:
        dtype: Dtype = "float32" if engine.dtype == "auto" else engine.dtype
        check_ram(policy, engine, weights=weight_bytes(policy, dtype), free=free_ram())


def visible_gpus() -> list[Gpu]:
    """All devices that CUDA shows (not run on one).

    By a process of its own: to ask a device puts half a GiB of CUDA's context on it, which stays as long as
    the process that asked.
    """
    answer = subprocess.run(
        [sys.executable, "-c", _ASK_GPUS], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return [Gpu(free, total) for free, total in json.loads(answer)]


def check_gpus(policy: Path, engine: Engine, *, weights: int, gpus: Sequence[Gpu]) -> None:
    """Every engine takes `gpu_memory_utilization` of each of its GPUs, and must find it free (vLLM's own
    rule)."""
    shards, share = engine.tensor_parallel_size, engine.gpu_memory_utilization
    wanted = shards * engine.data_parallel_size
    if wanted > len(gpus):
        raise NoRoomError(
            f"policy.engine: tensor_parallel_size {shards} x data_parallel_size "
            f"{engine.data_parallel_size} need {wanted} GPUs, {len(gpus)} are visible"
        )
    for number, gpu in enumerate(gpus[:wanted]):
        if weights / shards >= share * gpu.total:
            raise NoRoomError(
                f"{policy}: its weights take {_gib(weights / shards)} of each GPU, and policy.engine."
                f"gpu_memory_utilization = {share} of GPU {number} is {_gib(share * gpu.total)}; raise it, "
                f"or tensor_parallel_size = {shards}"
            )
        if share * gpu.total > gpu.free:
            most = math.floor(100 * gpu.free / gpu.total) / 100
            raise NoRoomError(
                f"{policy}: policy.engine.gpu_memory_utilization = {share} of GPU {number} is "
                f"{_gib(share * gpu.total)}, and {_gib(gpu.free)} are free; end what else is on that GPU, or "
                f"set gpu_memory_utilization to at most {most} (the weights take {_gib(weights / shards)})"
            )


def check_ram(policy: Path, engine: Engine, *, weights: int, free: int) -> None:
    """All engines together must find weights, key-value caches and what vLLM itself takes."""
    caches = engine.data_parallel_size * engine.tensor_parallel_size * engine.cpu_kv_cache_gib * GIB
    processes = engine.data_parallel_size * engine.tensor_parallel_size * ENGINE_BYTES
    copies = engine.data_parallel_size * weights
    needed = copies + caches + processes
    if needed > free:
        raise NoRoomError(
            f"{policy}: sampling needs {_gib(needed)} of memory, and {_gib(free)} are free: weights take "
            f"{_gib(copies)} (policy.engine.dtype, data_parallel_size), key-value caches {_gib(caches)} "
            f"(cpu_kv_cache_gib), vLLM itself {_gib(processes)}"
        )


def weight_bytes(policy: Path, dtype: Dtype) -> int:
    """What a checkpoint's tensors take in a dtype; `auto`: in their own. Only headers are read."""
    total = 0
    for file in sorted(policy.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is no mapping
                tensor = tensors.get_slice(name)
                width = _own_width(tensor.get_dtype()) if dtype == "auto" else _WIDTHS[dtype]
                total += width * math.prod(tensor.get_shape())
    return total


def free_ram(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that new processes can take: what the kernel calls available, less where a cgroup allows less."""
    for line in (proc / "meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    return min([available, *_cgroup_rooms(proc, cgroups)])


def _cgroup_rooms(proc: Path, cgroups: Path) -> Iterator[int]:
    """What the limits of this process's memory cgroups leave, from the innermost out; of versions 1 and 2.

    Inside a container the innermost that is visible may be the mount's own root.
    """
    for line in (proc / "self" / "cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names, cache = cgroups, ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):
            root, cache = cgroups / "memory", "total_inactive_file"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        inner = root / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(root):
                break
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None and limit < _UNLIMITED:
                yield max(0, limit - used + _reclaimable(folder / "memory.stat", cache))


def _number(file: Path) -> int | None:
    """The number in a file; None without a file, or where it says `max`."""
    text = file.read_text(encoding="ascii").strip() if file.is_file() else "max"
    return None if text == "max" else int(text)


def _reclaimable(file: Path, name: str) -> int:
    """Page cache that the kernel gives up before it lets a process die."""
    lines = file.read_text(encoding="ascii").splitlines() if file.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def _own_width(dtype: str) -> int:
    """Bytes of a number as safetensors names its type: F32, BF16, F8_E4M3."""
    return int("".join(c for c in dtype.split("_")[0] if c.isdigit())) // 8


def _gib(number: float) -> str:
    return f"{number / GIB:.1f} GiB"
