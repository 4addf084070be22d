"""The child as its parent sees it, without an engine: vLLM is loaded with the first job only."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from preforch_training.sampling.child_process import ChildDiedError, VllmProcess
from preforch_training.sampling.settings import Engine
from preforch_training.sampling.wire import Job

JOB = Job(
    policy="no-such-folder",
    reload=False,
    max_model_len=64,
    end_id=0,
    temperature=1.0,
    top_p=1.0,
    max_tokens=1,
    engine=Engine(),
    adapters={},
    adapter_rank=0,
    requests=(),
)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[VllmProcess]:
    process = VllmProcess(tmp_path / "logs" / "vllm.log")
    yield process
    process.kill()


def test_a_child_that_was_killed_says_so_when_it_is_asked(process: VllmProcess, tmp_path: Path) -> None:
    with (tmp_path / "logs" / "vllm.log").open("a", encoding="utf-8") as log:
        log.write("an omen\n")
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ChildDiedError, match=r"(?s)status -9; .*vllm\.log ends with:\nan omen"):
        process.ask(JOB, lambda done: None)
    assert not process.alive


def test_last_words_are_the_child_s_own(process: VllmProcess, tmp_path: Path) -> None:
    process.end()
    with (tmp_path / "logs" / "vllm.log").open("a", encoding="utf-8") as log:
        log.write("of the one before\n")
    other = VllmProcess(tmp_path / "logs" / "vllm.log")
    assert other.last_words() == "it printed nothing"
    other.kill()
    assert (tmp_path / "logs" / "vllm.log").read_text(encoding="utf-8") == "of the one before\n"


def test_a_child_without_a_log_file_still_has_last_words() -> None:
    fields: dict[str, Any] = {"policy": "and nothing else"}
    process = VllmProcess(None)
    with pytest.raises(ChildDiedError, match=r"(?s)status 1; what it printed ends with:.*Field required"):
        process.ask(Job.model_construct(**fields), lambda done: None)
    process.kill()


def test_an_idle_child_ends_by_itself_when_it_is_asked_to(process: VllmProcess) -> None:
    start = time.monotonic()
    process.end()
    assert not process.alive
    assert time.monotonic() - start < 8, "it had to be killed"


def test_a_child_does_not_take_itself_for_a_rank_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "x",
        "ACCELERATE_USE_FSDP": "true",
    }
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    process = VllmProcess(None)
    try:
        deadline = time.monotonic() + 30
        # Empty until the kernel has ended exec.
        while not (environment := Path(f"/proc/{process.pid}/environ").read_bytes()):
            assert time.monotonic() < deadline
    finally:
        process.kill()
    given = {entry.partition("=")[0] for entry in environment.decode().split("\0")}
    assert "PATH" in given
    assert not given & set(ours)
