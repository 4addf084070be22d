"""Clients that leave, an engine that is killed or hangs, a drain that is too short, with a real vLLM."""

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from preforch_models.bundle import read_bundle
from preforch_models.policy_card import read_policy_card
from preforch_models.run_folder import RunInfo, write_run_info
from preforch_service.conditioning import conditioner_of
from preforch_service.engine.pool import Pool
from preforch_service.engine.readiness import Readiness
from preforch_service.engine.upstream import AiohttpUpstream, read_all
from preforch_service.telemetry.metrics import Metrics
from preforch_training.policy.config import Scratch
from processes import alive, children, engine_server, title, wait_until
from test_with_vllm import gateway_process

# So long, from so slow a model (some milliseconds a token), that no answer is complete before a test is done
# with it.
TOKENS = 7000
SLOW = Scratch(vocabulary=300, width=512, layers=8, heads=16, inner=2048)
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
LONG = {"messages": HELLO, "max_tokens": TOKENS, "ignore_eos": True}
OPTIONS = (
    *("--max-running", "2", "--max-waiting", "1", "--drain-timeout", "2"),
    *("--health-timeout", "5", "--idle-timeout", "8", "--first-byte-timeout", "120", "--hang-timeout", "45"),
)
PATIENCE = 240


class Served:
    """A gateway process, its engine as the kernel shows it, and the engine's own metrics."""

    def __init__(self, process: subprocess.Popen[str], url: str, socket: Path, policy: Path) -> None:
        self.process = process
        self.socket = socket
        self.policy = policy
        self.http = httpx.Client(base_url=url, timeout=PATIENCE)
        self.engine_http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine"
        )

    def metric(self, name: str) -> float:
        """A metric of vLLM, summed over its labels."""
        text = self.engine_http.get("/metrics", timeout=60).text
        return sum(
            float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, flags=re.MULTILINE)
        )

    def running(self) -> float:
        return self.metric("vllm:num_requests_running")

    def ready(self) -> bool:
        return self.http.get("/readyz").status_code == 200

    def engine_processes(self) -> set[int]:
        return children(self.process.pid)

    def server_process(self) -> int:
        """vLLM's API server."""
        return engine_server(self.process.pid)

    def stop_engine(self, number: int) -> None:
        """A signal to every process of the engine."""
        os.killpg(os.getpgid(self.server_process()), number)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("faults")
    run = folder / "run"
    bundle = read_bundle(tiny.write_bundle(run / "bundle"))
    target = run / "policy" / "wic" / "round-0"
    policy = tiny.write_policy(target, bundle.info.context, max_model_len=TOKENS + 1000, size=SLOW)
    write_run_info(run, RunInfo(serve="wic"))
    with gateway_process(run, folder / "log", *OPTIONS) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready at "), (folder / "log").read_text()
        (socket,) = folder.glob("tmp/preforch-*/engine.sock")
        served = Served(process, line.split()[-1], socket, policy)
        with served.http, served.engine_http:
            yield served


class Stream:
    """A long stream, read by a thread."""

    def __init__(self, served: Served, **fields: object) -> None:
        self.begun = threading.Event()
        self.content = b""
        self._thread = threading.Thread(target=self._read, args=(served, LONG | {"stream": True} | fields))
        self._thread.start()
        assert self.begun.wait(PATIENCE)

    def _read(self, served: Served, body: dict[str, Any]) -> None:
        with served.http.stream("POST", "/v1/chat/completions", json=body) as response:
            for piece in response.iter_bytes():
                self.content += piece
                self.begun.set()

    def error(self) -> dict[str, Any]:
        """Wait for the end, which is an error event and [DONE], after whole events."""
        self._thread.join(PATIENCE)
        *events, last, done, nothing = self.content.split(b"\n\n")
        assert (done, nothing) == (b"data: [DONE]", b"")
        assert all("choices" in json.loads(event.removeprefix(b"data: ")) for event in events)
        error: dict[str, Any] = json.loads(last.removeprefix(b"data: "))["error"]
        return error


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_generation_in_the_engine(served: Served, stream: bool) -> None:
    before = served.metric("vllm:generation_tokens_total")
    leave_when_running(served, stream)
    assert wait_until(lambda: served.running() == 0, PATIENCE)
    made = served.metric("vllm:generation_tokens_total") - before
    assert 0 < made < TOKENS / 2, "the engine has stopped long before its end"


def leave_when_running(served: Served, stream: bool) -> None:
    """Ask, and leave in the middle of the stream, or while waiting for the whole answer."""
    if stream:
        with served.http.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as response:
            next(response.iter_bytes())
    else:
        with pytest.raises(httpx.ReadTimeout):
            served.http.post("/v1/chat/completions", json=LONG, timeout=1.5)


def test_the_line_is_bounded_and_a_client_that_leaves_it_frees_its_place(served: Served) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            body = LONG | {"stream": True}
            response = stack.enter_context(served.http.stream("POST", "/v1/chat/completions", json=body))
            next(response.iter_bytes())
        with ThreadPoolExecutor(1) as threads:
            # Far shorter than the streams take.
            waiting = threads.submit(outcome, served, seconds=4)
            time.sleep(1)
            assert wait_until(
                lambda: waiting.done() or outcome(served, seconds=1) == "429 overloaded", PATIENCE
            )
            assert waiting.result() == "left"
        assert outcome(served, seconds=1) == "left", "the place in the line was free again"
    assert wait_until(lambda: served.running() == 0, PATIENCE)


def outcome(served: Served, *, seconds: float) -> str:
    """How a request ends whose client waits for so long."""
    try:
        response = served.http.post("/v1/chat/completions", json=LONG, timeout=seconds)
    except httpx.ReadTimeout:
        return "left"
    assert response.headers["Retry-After"]
    return f"{response.status_code} {response.json()['error']['code']}"


def test_one_real_engine_and_one_dead_address(served: Served) -> None:
    async def check() -> None:
        card = read_policy_card(served.policy)
        upstreams = {
            "dead": AiohttpUpstream("http://127.0.0.1:9"),
            "engine": AiohttpUpstream("http://engine", socket=served.socket),
        }
        pool = Pool(upstreams, metrics=Metrics())
        readiness = Readiness(
            pool, model="tiny", card=card, conditioner=conditioner_of(card), metrics=Metrics(), timeout=60
        )
        try:
            assert await readiness.check()
            body = json.dumps({"model": "tiny", "messages": HELLO, "max_tokens": 2}).encode()
            # As if the dead one had been up a moment ago.
            pool.mark(pool.members[0], None)
            for _ in range(2):
                answer = await pool.request("POST", "/v1/chat/completions", body)
                assert answer.status == 200
                assert json.loads(await read_all(answer))["usage"]["completion_tokens"] <= 2
            assert [member.blocked is None for member in pool.members] == [False, True]
        finally:
            await pool.close()

    asyncio.run(check())


def test_a_killed_engine_is_an_error_for_everyone_and_comes_back(served: Served) -> None:
    old = served.server_process()
    with ThreadPoolExecutor(1) as threads:
        whole = threads.submit(served.http.post, "/v1/chat/completions", json=LONG)
        stream = Stream(served)
        assert wait_until(lambda: served.running() == 2, PATIENCE)
        os.kill(old, signal.SIGKILL)
        assert wait_until(lambda: not served.ready(), seconds=5)
        assert "shut" not in served.http.get("/readyz").json()["reason"]
        error = stream.error()
        assert (error["code"], "the engine died" in error["message"]) == ("engine_down", True)
        response = whole.result()
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_down")
        assert response.headers["Retry-After"]
    assert wait_until(served.ready, PATIENCE)
    assert served.server_process() != old
    assert served.http.post("/generate", json={"prompt": "x", "max_tokens": 2}).status_code == 200


def test_a_hung_engine_ends_streams_and_is_not_ready_until_it_goes_on(served: Served) -> None:
    stream = Stream(served)
    served.stop_engine(signal.SIGSTOP)
    try:
        error = stream.error()
        assert (error["code"], "nothing more for 8 s" in error["message"]) == ("engine_timeout", True)
        assert wait_until(lambda: not served.ready(), PATIENCE)
        assert served.http.get("/readyz").json()["reason"] == "the engine does not answer"
    finally:
        served.stop_engine(signal.SIGCONT)
    assert wait_until(served.ready, PATIENCE)
    assert wait_until(lambda: served.running() == 0, PATIENCE)


@pytest.mark.slow
def test_an_engine_whose_core_hangs_is_noticed_too_and_started_again(served: Served) -> None:
    (core,) = (pid for pid in served.engine_processes() if "EngineCore" in title(pid))
    old = served.engine_processes()
    stream = Stream(served)
    os.kill(core, signal.SIGSTOP)
    assert stream.error()["code"] == "engine_timeout"
    assert served.engine_http.get("/health").status_code == 200, "vLLM itself does not notice"
    assert wait_until(lambda: not served.ready(), PATIENCE)
    assert wait_until(lambda: not any(map(alive, old)), PATIENCE)
    assert wait_until(served.ready, PATIENCE)


def test_a_stream_that_does_not_finish_in_the_drain_time_ends_with_an_error_event(served: Served) -> None:
    started = served.engine_processes()
    stream = Stream(served)
    begun = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: not served.ready(), seconds=2)
    refused = served.http.post("/weights", json={"prompt": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    error = stream.error()
    assert (error["code"], "shut down" in error["message"]) == ("draining", True)
    assert time.monotonic() - begun > 1, "it had its time"
    assert served.process.wait(60) == 0
    assert wait_until(lambda: not any(map(alive, started)))
