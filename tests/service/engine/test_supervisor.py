"""The supervisor restarts an engine that has served, gives up on one that has not, stops what it started."""

import asyncio
import os
import re
import stat
import sys
import time
from pathlib import Path

import pytest
from preforch_models.policy_card import PolicyCard, read_policy_card
from preforch_service.engine.supervisor import (
    LOG_BYTES,
    ONE_PROCESS,
    Engine,
    EngineCommand,
    EngineFailed,
    private_folder,
)
from preforch_service.telemetry.metrics import Metrics
from processes import children


def engine(folder: Path, code: str, *, was_ready: bool) -> Engine:
    """An engine that is a piece of Python."""
    command = [sys.executable, "-c", code]
    return Engine(command, dict(os.environ), folder / "s", folder / "log", Metrics(), was_ready)


def starts(supervised: Engine) -> float | None:
    return supervised.metrics.registry.get_sample_value("preforch_engine_starts_total")


def test_an_engine_that_never_served_fails_with_its_log(tmp_path: Path) -> None:
    supervised = engine(tmp_path, "raise SystemExit('no such model')", was_ready=False)
    with pytest.raises(EngineFailed, match="no such model"):
        asyncio.run(supervised.supervise())


def test_an_engine_that_has_served_is_restarted(tmp_path: Path) -> None:
    supervised = engine(tmp_path, "pass", was_ready=True)

    async def watch() -> None:
        task = asyncio.create_task(supervised.supervise())
        deadline = time.monotonic() + 20
        while (starts(supervised) or 0) < 3 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        task.cancel()
        await supervised.stop()

    begun = time.monotonic()
    asyncio.run(watch())
    assert starts(supervised) == 3
    assert time.monotonic() - begun > 3, "the second pause is longer than the first"


def test_an_engine_that_hangs_after_it_has_served_is_killed_and_started_again(tmp_path: Path) -> None:
    supervised = engine(tmp_path, "import time; time.sleep(600)", was_ready=False)
    ended: list[float | None] = []
    supervised.on_end = lambda: ended.append(starts(supervised))

    async def until(count: int) -> None:
        while (starts(supervised) or 0) < count:
            await asyncio.sleep(0.05)

    async def watch() -> None:
        tasks = [
            asyncio.create_task(supervised.supervise()),
            asyncio.create_task(supervised.watch(lambda: False, limit=0.4)),
        ]
        await until(1)
        await asyncio.sleep(1)
        assert starts(supervised) == 1, "it loads, which may take longer than the limit"
        supervised.mark_ready()
        await asyncio.wait_for(until(2), 60)
        for task in tasks:
            task.cancel()
        await supervised.stop()

    asyncio.run(watch())
    assert ended == [1]


def test_a_log_that_grows_begins_anew_and_keeps_what_was_in_it(tmp_path: Path) -> None:
    shouts = "print('first', flush=True); time.sleep(2); print('second', flush=True)"
    code = f"import time; print('x' * {LOG_BYTES}); {shouts}"
    supervised = engine(tmp_path, f"{code}; time.sleep(600)", was_ready=True)

    async def watch() -> None:
        tasks = [
            asyncio.create_task(supervised.supervise()),
            asyncio.create_task(supervised.watch(lambda: True, limit=0.4)),
        ]
        async with asyncio.timeout(60):
            while not supervised.log.is_file() or supervised.log.read_text(encoding="utf-8") != "second\n":
                await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await supervised.stop()

    asyncio.run(watch())
    assert (tmp_path / "log.1").read_text(encoding="utf-8").endswith("x\nfirst\n")


def test_a_log_that_cannot_be_cut_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log.1").mkdir()
    supervised = engine(
        tmp_path, f"print('x' * {LOG_BYTES + 1}, flush=True); import time; time.sleep(600)", was_ready=True
    )

    async def watch() -> None:
        tasks = [asyncio.create_task(supervised.supervise())]
        tasks.append(asyncio.create_task(supervised.watch(lambda: True, limit=0.4)))
        async with asyncio.timeout(30):
            while "grows from now on" not in caplog.text:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await supervised.stop()

    asyncio.run(watch())
    assert caplog.text.count("grows from now on") == 1


@pytest.mark.parametrize(("serves", "pauses"), [(True, ["1 s", "1 s"]), (False, ["1 s", "2 s"])])
def test_time_to_serve_makes_an_engine_stable_and_time_to_load_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, serves: bool, pauses: list[str]
) -> None:
    supervised = engine(tmp_path, "import time; time.sleep(0.7)", was_ready=True)
    supervised.stable_seconds = 0.3

    async def watch() -> None:
        task = asyncio.create_task(supervised.supervise())
        while (starts(supervised) or 0) < 3:
            await asyncio.sleep(0.01)
            if serves:
                supervised.mark_ready()
        task.cancel()
        await supervised.stop()

    asyncio.run(asyncio.wait_for(watch(), 60))
    assert re.findall(r"starting it again in (\d+ s)", caplog.text) == pauses


@pytest.mark.parametrize("was_ready", [True, False])
def test_stopping_leaves_nothing(tmp_path: Path, was_ready: bool) -> None:
    supervised = engine(
        tmp_path, "print('up', flush=True); import time; time.sleep(600)", was_ready=was_ready
    )

    async def start_and_stop() -> None:
        task = asyncio.create_task(supervised.supervise())
        while not (supervised.log.exists() and "up" in supervised.log_tail()):
            await asyncio.sleep(0.05)
        assert len(children(os.getpid())) >= 2
        task.cancel()
        await supervised.stop()

    before = children(os.getpid())
    asyncio.run(start_and_stop())
    assert children(os.getpid()) <= before


def test_the_socket_lies_in_a_folder_of_this_user() -> None:
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(str(folder / "engine.sock")) < 108
    assert not folder.exists()


def test_the_command_gives_the_engine_default_weights_and_lets_the_operator_override(
    run_folder: Path,
) -> None:
    policy = run_folder / "policy" / "wic" / "round-0"
    card: PolicyCard = read_policy_card(policy)
    fallback = {"helpful": 0.5, "harmless": 0.3, "humor": 0.2}
    command = EngineCommand(
        policy, card, "tiny", ("--uds", "s"), fallback, cpu=True, extra=("--max-model-len", "64")
    )
    arguments = command.arguments()
    assert arguments[arguments.index("--default-chat-template-kwargs") + 1] == (
        '{"weights": {"helpful": 0.5, "harmless": 0.3, "humor": 0.2}}'
    )
    assert arguments[-2:] == ["--max-model-len", "64"]
    assert command.environment()["HF_HUB_OFFLINE"] == "1"


def test_parsers_are_switched_on_where_they_are_named(run_folder: Path) -> None:
    policy = run_folder / "policy" / "wic" / "round-0"
    card = read_policy_card(policy)
    plain = EngineCommand(policy, card, "tiny", (), {}, cpu=False).arguments()
    parsing = EngineCommand(
        policy, card, "tiny", (), {}, cpu=False, tool_call_parser="hermes", reasoning_parser="qwen3"
    ).arguments()
    more = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"]
    assert parsing == [*plain, *more]


def test_an_engine_on_a_cpu_leaves_a_core_to_the_gateway_unless_the_operator_says_otherwise(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = run_folder / "policy" / "wic" / "round-0"
    cpu, gpu = (
        EngineCommand(policy, read_policy_card(policy), "tiny", (), {}, cpu=cpu) for cpu in (True, False)
    )
    assert ONE_PROCESS in cpu.arguments()
    assert ONE_PROCESS not in gpu.arguments()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cpu.environment()["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) - 1))
    assert "OMP_NUM_THREADS" not in gpu.environment()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert cpu.environment()["OMP_NUM_THREADS"] == "7"
