"""Supervises a vLLM child.

Started, watched, restarted with backoff (killed first where it hangs), terminated.

In:  a policy folder with its card. Out: an OpenAI server on a Unix socket in a private folder, as long as
     this runs.
"""

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from preforch_models.policy_card import PolicyCard
from preforch_models.weights import Weights

from preforch_service.conditioning import conditioner_of
from preforch_service.engine.launcher import GRACE_SECONDS
from preforch_service.keys import ADMIN_VARIABLE, KEYS_VARIABLE
from preforch_service.telemetry.metrics import Metrics

SERVER = "vllm.entrypoints.launchers.api_server.entry"
LAUNCHER = "preforch_service.engine.launcher"
# vLLM's default on a CPU, a worker process, and the scheduler that waits for it, burn a core each while they
# wait.
ONE_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
MAX_SOCKET_PATH = 100
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
STABLE_SECONDS = 60.0
LOG_BYTES = 16 * 2**20
"""The engine's log begins anew when it is larger; the older part is kept beside it."""

logger = logging.getLogger(__name__)


class EngineFailed(RuntimeError):
    """The engine ended before it was ready for the first time: trying again would not help."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder that only this user can enter, with a path short enough for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="preforch-"))
    if len(str(folder)) > MAX_SOCKET_PATH - len("/engine.sock"):
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="preforch-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class EngineCommand:
    """What to start. `extra` comes last, so that it can override anything. `cpu`: vLLM is the CPU build.

    `listen`: vLLM's arguments that say where, `--uds SOCKET` or `--host HOST --port PORT`.
    """

    policy: Path
    card: PolicyCard
    model: str
    listen: tuple[str, ...]
    fallback: Weights
    cpu: bool
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    extra: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """Python's arguments; what the chat template gets by default is the conditioner's affair."""
        # vLLM 0.32 on a CPU fails on a seeded request whose prefill is split into chunks.
        tokens = str(max(2048, self.card.max_model_len))
        whole = ["--no-enable-chunked-prefill", "--max-num-batched-tokens", tokens]
        on_cpu = [
            "--dtype",
            "float32",
            "--enforce-eager",
            "--distributed-executor-backend",
            ONE_PROCESS,
            *whole,
        ]
        device = on_cpu if self.cpu else ["--dtype", "auto"]
        conditioner = conditioner_of(self.card)
        template = conditioner.default_template_kwargs(self.fallback)
        defaults = ["--default-chat-template-kwargs", json.dumps(template)] if template else []
        return [
            *("-m", SERVER, "--model", str(self.policy), *self.listen),
            *("--served-model-name", self.model, "--max-model-len", str(self.card.max_model_len)),
            *(*defaults, *conditioner.engine_arguments(self.policy)),
            *("--disable-uvicorn-access-log", *device, *self._parsers(), *self.extra),
        ]

    def _parsers(self) -> list[str]:
        """A model calls tools of its own accord only where vLLM is told so beside the parser's name."""
        found: list[str] = []
        if self.tool_call_parser is not None:
            found += ["--enable-auto-tool-choice", "--tool-call-parser", self.tool_call_parser]
        if self.reasoning_parser is not None:
            found += ["--reasoning-parser", self.reasoning_parser]
        return found

    def variables(self) -> dict[str, str]:
        """No telemetry, no model hub for a local folder, and pooled connections stay open."""
        ours = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60"}
        return ours | ({"VLLM_CPU_KVCACHE_SPACE": "1"} if self.cpu else {})

    def environment(self) -> dict[str, str]:
        """The whole environment on this machine: the operator's beats ours, and no keys are in it."""
        # One core is left to the gateway and to vLLM's front end: threads that wait for each other on shared
        # cores are many times slower.
        threads = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1))} if self.cpu else {}
        theirs = {
            name: value for name, value in os.environ.items() if name not in (KEYS_VARIABLE, ADMIN_VARIABLE)
        }
        return self.variables() | threads | theirs


@dataclass
class Engine:
    """One supervised engine. `mark_ready` is called when it serves; before that, its end is final.

    `on_end` is called when it has ended. One that has served for `stable_seconds` is started again after the
    first, short pause.
    """

    command: list[str]
    environment: dict[str, str]
    socket: Path
    log: Path
    metrics: Metrics
    was_ready: bool = False
    on_end: Callable[[], None] = lambda: None
    stable_seconds: float = STABLE_SECONDS
    # Whether it has served since it was started last; an engine that loads does not hang.
    serving: bool = field(default=False, init=False)
    _served_since: float | None = field(default=None, init=False)
    _log_is_bounded: bool = field(default=True, init=False)
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)

    def mark_ready(self) -> None:
        """The engine answers."""
        if not self.serving:
            self._served_since = time.monotonic()
        self.was_ready = self.serving = True

    async def supervise(self) -> None:
        """Start the engine and restart it when it ends. Raises EngineFailed when it was never ready."""
        pause = FIRST_PAUSE
        while True:
            await self._run_once()
            if not self.was_ready:
                raise EngineFailed(
                    f"the engine ended before it was ready; the end of its log:\n{self.log_tail()}"
                )
            # Loading does not count: an engine that loads for minutes and then fails is not stable.
            since = self._served_since
            pause = (
                FIRST_PAUSE if since is not None and time.monotonic() - since > self.stable_seconds else pause
            )
            logger.warning("the engine ended; starting it again in %.0f s", pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run_once(self) -> None:
        self.serving, self._served_since = False, None
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", LAUNCHER, str(os.getpid()), *self.command),
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.metrics.engine_starts.inc()
        await self._process.wait()
        self._kill_group()
        self.on_end()

    async def watch(self, ready: Callable[[], bool], *, limit: float) -> None:
        """Kill an engine that has served and then was not ready for `limit` seconds.

        `supervise` starts it again.

        Keeps the log within bounds, too.
        """
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            await asyncio.sleep(min(1.0, limit / 4))
            self._bound_log()
            if ready() or not self.serving:
                since = loop.time()
            elif loop.time() - since > limit:
                logger.warning("the engine has not answered for %.0f s and is killed", limit)
                self.serving = False
                self._kill_group()

    def _bound_log(self) -> None:
        if self._log_is_bounded and self.log.is_file() and self.log.stat().st_size > LOG_BYTES:
            try:
                shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
                # The engine appends, so that its next line is the first one.
                os.truncate(self.log, 0)
            except OSError as error:
                # Whatever stands in the way of a log must not stand in the way of answers.
                self._log_is_bounded = False
                logger.warning("the engine's log grows from now on: %s", error)

    async def stop(self) -> None:
        """Terminate the engine, and kill what does not end in time.

        One that still loads has nothing to finish.
        """
        if self._process is None or self._process.returncode is not None:
            return
        if not self.was_ready:
            self._kill_group()
        else:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), GRACE_SECONDS + 2)
        except TimeoutError:
            logger.warning("the engine did not end in time and is killed")
        self._kill_group()

    def _kill_group(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def log_tail(self, lines: int = 25) -> str:
        """The last lines of the engine's log, for an error message."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
