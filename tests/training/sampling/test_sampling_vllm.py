"""Sampling with the real vLLM: what comes back, and that nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from preforch_models.context import ContextFormat
from preforch_models.conversation import Message
from preforch_training.sampling.vllm import Generation, SampleRequest, SamplerError, VllmSampler

NAMES = ("helpful", "harmless", "humor")
WEIGHTS = {"helpful": 0.5, "harmless": 0.3, "humor": 0.2}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    context_format = ContextFormat(objectives=NAMES, encoding="levels")
    return tiny.write_policy(tmp_path_factory.mktemp("policy") / "round-0", context_format)


def request(*, n: int = 2, seed: int = 1, text: str = "Tell me a joke") -> SampleRequest:
    return SampleRequest(messages=(Message(role="user", content=text),), weights=WEIGHTS, n=n, seed=seed)


@pytest.fixture(scope="module")
def sampled(policy: Path) -> tuple[VllmSampler, list[list[Generation]]]:
    """Three requests, the first two alike; many enough to need several batches."""
    sampler = VllmSampler()
    requests = [request(seed=1, n=3), request(seed=1, n=3), request(seed=2, n=40)]
    return sampler, sampler.sample(policy, requests, temperature=1.0, top_p=0.95, max_tokens=16)


def test_every_request_gets_its_responses(sampled: tuple[VllmSampler, list[list[Generation]]]) -> None:
    sampler, groups = sampled
    assert [len(group) for group in groups] == [3, 3, 40]
    assert all(0 < len(g.token_ids) <= 16 for group in groups for g in group if not g.finished)
    assert sampler.peak_memory_mib > 100


def test_a_seed_decides_the_response(sampled: tuple[VllmSampler, list[list[Generation]]]) -> None:
    _, groups = sampled
    assert groups[0] == groups[1]
    assert len({g.token_ids for g in groups[0] + groups[2]}) > 20


def test_a_prompt_without_room_is_refused(policy: Path) -> None:
    with pytest.raises(ValueError, match="exceed the policy's max_model_len 256"):
        VllmSampler().sample(policy, [request(text="joke " * 300)], temperature=1.0, top_p=1.0, max_tokens=16)


def test_a_failure_of_vllm_is_an_error_that_says_why(policy: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in policy.iterdir():
        if path.suffix != ".safetensors":
            (broken / path.name).write_bytes(path.read_bytes())
    with pytest.raises(SamplerError, match="vLLM failed on"):
        VllmSampler().sample(broken, [request()], temperature=1.0, top_p=1.0, max_tokens=16)


def test_no_request_starts_no_engine(policy: Path) -> None:
    assert VllmSampler().sample(policy, [], temperature=1.0, top_p=1.0, max_tokens=16) == []


def test_the_child_dies_with_a_killed_parent(policy: Path) -> None:
    program = (
        "import sys, test_sampler\nfrom pathlib import Path\nfrom preforch_training.sampling.vllm import VllmSampler\n"
        "VllmSampler().sample(Path(sys.argv[1]), [test_sampler.request(n=64)], temperature=1, top_p=1, max_tokens=200)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(policy)], env=environment, stderr=subprocess.DEVNULL
    )
    child = wait_for_child(parent)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(child)


def wait_for_child(parent: subprocess.Popen[bytes]) -> int:
    """Process id of the vLLM child, once it has loaded vLLM."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert parent.poll() is None, "the parent ended on its own"
        for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text(encoding="ascii").split():
            maps = Path(f"/proc/{pid}/maps")
            if b"vllm_child" in Path(f"/proc/{pid}/cmdline").read_bytes() and "libtorch" in maps.read_text():
                return int(pid)
        time.sleep(0.1)
    raise AssertionError("no child appeared")


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
