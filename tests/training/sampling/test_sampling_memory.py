"""An engine is started only where it has room; what is missing and which setting to change is said before."""

from pathlib import Path

import pytest
import torch
from preforch_training.sampling.engines import SamplerError
from preforch_training.sampling.memory import (
    GIB,
    Gpu,
    NoRoomError,
    check_gpus,
    check_ram,
    free_ram,
    visible_gpus,
    weight_bytes,
)
from preforch_training.sampling.settings import Engine
from preforch_training.sampling.vllm import VllmSampler
from safetensors.torch import save_file
from sampling_world import draw, write_policy

POLICY = Path("policy")
EMPTY = Gpu(free=79 * GIB, total=80 * GIB)


def test_a_share_of_a_gpu_must_be_free() -> None:
    check_gpus(POLICY, Engine(), weights=15 * GIB, gpus=[EMPTY])
    with pytest.raises(
        NoRoomError,
        match=r"gpu_memory_utilization = 0\.9 of GPU 0 is 72\.0 GiB, and 30\.0 GiB are free; .* at most "
        r"0\.37 \(the weights take 15\.0 GiB\)",
    ):
        check_gpus(POLICY, Engine(), weights=15 * GIB, gpus=[Gpu(free=30 * GIB, total=80 * GIB)])


def test_the_weights_must_fit_into_the_share_of_each_gpu() -> None:
    check_gpus(POLICY, Engine(tensor_parallel_size=2), weights=140 * GIB, gpus=[EMPTY, EMPTY])
    with pytest.raises(NoRoomError, match=r"140\.0 GiB of each GPU.*is 72\.0 GiB; raise it, or tensor"):
        check_gpus(POLICY, Engine(), weights=140 * GIB, gpus=[EMPTY, EMPTY])


def test_every_gpu_that_is_asked_for_must_be_there_and_have_room() -> None:
    engine = Engine(tensor_parallel_size=2, data_parallel_size=2)
    with pytest.raises(NoRoomError, match=r"_size 2 x data_parallel_size 2 need 4 GPUs, 3 are"):
        check_gpus(POLICY, engine, weights=GIB, gpus=[EMPTY] * 3)
    with pytest.raises(NoRoomError, match="of GPU 3 is"):
        check_gpus(POLICY, engine, weights=GIB, gpus=[EMPTY] * 3 + [Gpu(free=0, total=80 * GIB)])
    check_gpus(POLICY, engine, weights=GIB, gpus=[EMPTY] * 4 + [Gpu(free=0, total=80 * GIB)])


def test_weights_and_caches_of_all_engines_must_fit_into_memory() -> None:
    engine = Engine(data_parallel_size=2, cpu_kv_cache_gib=4)
    # 2 x (3 + 4 + 1.5) GiB
    check_ram(POLICY, engine, weights=3 * GIB, free=17 * GIB)
    with pytest.raises(
        NoRoomError,
        match=r"policy: sampling needs 17\.0 GiB of memory, and 16\.9 GiB are free: weights take 6\.0 GiB "
        r".*dtype.*caches 8\.0 GiB \(cpu_kv_cache_gib\)",
    ):
        check_ram(POLICY, engine, weights=3 * GIB, free=int(16.9 * GIB))


def test_weights_are_counted_in_the_dtype_that_the_engine_will_use(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 5, dtype=torch.bfloat16)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(7, dtype=torch.float32)}, tmp_path / "model-00002-of-00002.safetensors")
    assert weight_bytes(tmp_path, "auto") == 15 * 2 + 7 * 4
    assert weight_bytes(tmp_path, "float32") == 22 * 4
    assert weight_bytes(tmp_path, "bfloat16") == 22 * 2


def write_machine(folder: Path, *, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A `/proc` and a `/sys/fs/cgroup` with 8 GiB available."""
    for name, text in {
        "proc/meminfo": f"MemTotal: {16 * 2**20} kB\nMemAvailable: {8 * 2**20} kB\n",
        "proc/self/cgroup": membership,
        **{f"cgroup/{name}": text for name, text in files.items()},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="ascii")
    return folder / "proc", folder / "cgroup"


@pytest.mark.parametrize(
    ("membership", "files", "gib"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"memory.max": "max", "memory.current": "5"}, 8),
        (
            "0::/job\n",
            {
                "job/memory.max": str(6 * GIB),
                "job/memory.current": str(4 * GIB),
                "job/memory.stat": f"anon 7\ninactive_file {GIB}\n",
            },
            3,
        ),
        # The limit is an outer group's.
        ("0::/pod/job\n", {"pod/memory.max": str(4 * GIB), "pod/memory.current": str(2 * GIB)}, 2),
        (
            "3:cpu:/\n4:memory:/job\n",
            {"memory/job/memory.limit_in_bytes": str(2 * GIB), "memory/job/memory.usage_in_bytes": str(GIB)},
            1,
        ),
        (
            "4:memory:/job\n",
            {"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "1"},
            8,
        ),
    ],
    ids=["no-cgroup", "no-limit", "limit", "outer-limit", "version-1", "version-1-no-limit"],
)
def test_free_memory_is_the_machine_s_or_what_a_cgroup_leaves(
    tmp_path: Path, membership: str, files: dict[str, str], gib: int
) -> None:
    assert free_ram(*write_machine(tmp_path, membership=membership, files=files)) == gib * GIB


def test_this_machine_has_some_memory() -> None:
    assert 0 < free_ram() < 2**50


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_a_machine_without_gpus_has_none() -> None:
    assert visible_gpus() == []


def test_a_sampler_without_room_says_so_and_starts_nothing(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", seed=0, tied=True)
    sampler = VllmSampler(Engine(cpu_kv_cache_gib=10**6))
    with pytest.raises(SamplerError, match=r"key-value caches 1000000\.0 GiB \(cpu_kv_cache_gib\)"):
        draw(sampler, policy)
    assert sampler.pids == ()
