"""How vLLM runs is for the config to say: every setting reaches it, and only dtype decides what is drawn."""

import re
import threading
import time
from pathlib import Path

import psutil
import pytest
import tiny
from preforch_training.sampling.engines import SamplerError, device_share
from preforch_training.sampling.settings import Engine
from preforch_training.sampling.vllm import Generation, VllmSampler
from preforch_training.sampling.vllm_child import engine_arguments
from preforch_training.sampling.wire import Job
from sampling_world import draw, request, sample_for_long, write_policy

SETTINGS = Engine(
    tensor_parallel_size=2, gpu_memory_utilization=0.5, dtype="bfloat16", max_num_seqs=7, cpu_kv_cache_gib=3
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policies") / "policy", seed=0, tied=False)


@pytest.fixture(scope="module")
def alone(policy: Path) -> list[list[Generation]]:
    """What one engine of the default settings draws."""
    with VllmSampler() as sampler:
        return draw(sampler, policy)


def job_of(engine: Engine) -> Job:
    return Job(
        policy="somewhere",
        reload=False,
        max_model_len=64,
        end_id=0,
        temperature=1.0,
        top_p=1.0,
        max_tokens=1,
        engine=engine,
        adapters={},
        adapter_rank=0,
        requests=(),
    )


def test_every_setting_of_an_engine_is_an_argument_of_vllm() -> None:
    given = engine_arguments(job_of(SETTINGS), on_gpu=True)
    for name in ("tensor_parallel_size", "gpu_memory_utilization", "dtype", "max_num_seqs"):
        assert given[name] == getattr(SETTINGS, name)


def test_auto_is_vllm_s_own_choice_but_for_single_precision_on_a_cpu() -> None:
    assert engine_arguments(job_of(Engine()), on_gpu=True)["dtype"] == "auto"
    assert engine_arguments(job_of(Engine()), on_gpu=False)["dtype"] == "float32"
    assert engine_arguments(job_of(Engine()), on_gpu=False)["max_num_seqs"] is None


def test_engines_share_the_gpus_out_in_order() -> None:
    shares = [device_share(["4", "5", "6", "7"], place, 2) for place in (0, 1)]
    assert shares == ["4,5", "6,7"]


def test_two_engines_that_write_few_at_a_time_draw_what_one_does(
    policy: Path, alone: list[list[Generation]]
) -> None:
    settings = Engine(data_parallel_size=2, max_num_seqs=2)
    with VllmSampler(settings) as sampler:
        assert draw(sampler, policy) == alone
        pids = sampler.pids
        assert len(set(pids)) == 2
        assert draw(sampler, policy) == alone
        assert sampler.pids == pids, "a second call started other processes"
        # Fewer requests than engines.
        (group,) = sampler.sample(policy, [request(n=2)], temperature=0.7, top_p=1.0, max_tokens=8)
        assert len(group) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_the_engine_s_own_log_shows_dtype_cache_and_number_of_sequences(
    policy: Path, tmp_path: Path, alone: list[list[Generation]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_LOGGING_LEVEL", "INFO")
        with VllmSampler(
            SETTINGS.model_copy(update={"tensor_parallel_size": 1}), log=tmp_path / "log"
        ) as sampler:
            drawn = draw(sampler, policy)
    words = (tmp_path / "log").read_text(encoding="utf-8")
    assert "dtype=torch.bfloat16" in words
    assert "'max_num_seqs': 7" in words
    assert "'gpu_memory_utilization': 0.5" in words
    # Two layers, keys and values, one head of 32 numbers of two bytes.
    (tokens,) = re.findall(r"KV cache size: ([\d,]+) tokens", words)
    assert int(tokens.replace(",", "")) * 2 * 2 * 32 * 2 == pytest.approx(3 * 2**30, rel=0.01)
    assert [len(group) for group in drawn] == [len(group) for group in alone]


def test_one_of_two_that_dies_takes_the_other_along(policy: Path) -> None:
    with VllmSampler(Engine(data_parallel_size=2)) as sampler:
        draw(sampler, policy)
        processes = [psutil.Process(pid) for pid in sampler.pids]
        threading.Timer(0.5, processes[1].kill).start()
        start = time.monotonic()
        with pytest.raises(SamplerError, match="ended with status -9"):
            sample_for_long(sampler, policy, requests=2)
        assert time.monotonic() - start < 10, "the other was waited for"
        assert sampler.pids == ()
        assert not any(process.is_running() for process in processes)


@pytest.mark.slow
def test_two_processes_that_share_one_model_draw_what_one_does(tmp_path: Path) -> None:
    size = tiny.TINY.model_copy(update={"width": 64, "heads": 2})
    policies = [
        write_policy(tmp_path / name, seed=seed, tied=True, size=size) for seed, name in enumerate("ab")
    ]
    with VllmSampler() as sampler:
        expected = [draw(sampler, policy) for policy in policies]
    with VllmSampler(Engine(tensor_parallel_size=2)) as sampler:
        # Another policy's weights are not shown to have arrived in both, so it gets new processes.
        assert [draw(sampler, policy) for policy in policies] == expected
        family = psutil.Process(sampler.pids[0]).children(recursive=True)
        assert len(family) >= 2
        psutil.Process(sampler.pids[0]).kill()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, "they outlive the process that started them"
