"""A vLLM child as its parent sees it: started, asked, ended.

In:  jobs (`preforch_training.sampling.wire`).
Out: their outcomes, or ChildDiedError with the last lines of the child's log.

The child gets SIGKILL from the kernel when the thread that started it ends, so start it from one that stays.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from preforch_training.sampling.wire import Job, JobOutcome, Progress, line_of, read_reply

LAST_LINES = 15
END_SECONDS = 10.0
_OF_RANKS = (
    "RANK",
    "LOCAL_",
    "WORLD_SIZE",
    "MASTER_",
    "GROUP_",
    "ROLE_",
    "TORCHELASTIC_",
    "ACCELERATE_",
    "FSDP_",
)
"""What says to a process that it is one of several that train; an engine is none."""


class ChildDiedError(OSError):
    """The child ended without an outcome."""


class VllmProcess:
    """One process of `preforch_training.sampling.vllm_child`."""

    def __init__(self, log: Path | None, *, variables: Mapping[str, str] | None = None) -> None:
        """`log`: where all that the child prints is appended; None: a file without a name. `variables`: of
        its environment, besides this process's."""
        self._log_file = log
        self._log = _open_log(log)
        self._log_start = os.fstat(self._log.fileno()).st_size
        self._process = subprocess.Popen(
            [sys.executable, "-m", "preforch_training.sampling.vllm_child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_own_environment() | dict(variables or {}),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, job: Job, progress: Callable[[int], None]) -> JobOutcome:
        """The outcome of a job. Raises ChildDiedError."""
        jobs, replies = self._process.stdin, self._process.stdout
        assert jobs is not None, "a pipe was asked for"
        assert replies is not None, "a pipe was asked for"
        try:
            jobs.write(line_of(job))
            jobs.flush()
        except BrokenPipeError:
            raise self._death() from None
        for line in replies:
            if not line.endswith(b"\n"):
                break  # killed while it wrote
            reply = read_reply(line)
            if not isinstance(reply, Progress):
                return reply
            progress(reply.done)
        raise self._death()

    def reset_peak_memory(self) -> None:
        """Start the process's peak memory afresh (Linux)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def last_words(self) -> str:
        """Where the log is, and its last lines."""
        # pread: the child writes at the position that this file has.
        size = os.fstat(self._log.fileno()).st_size
        start = max(self._log_start, size - 8192)
        text = os.pread(self._log.fileno(), size - start, start).decode(errors="replace")
        lines = text.splitlines()[-LAST_LINES:]
        name = "what it printed" if self._log_file is None else str(self._log_file)
        return "\n".join([f"{name} ends with:", *lines]) if lines else "it printed nothing"

    def end(self) -> None:
        """End the process: it is asked by the end of its stdin, and killed when it is busy or slow."""
        assert self._process.stdin is not None, "a pipe was asked for"
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process at once; its memory is free when this returns."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            assert pipe is not None, "a pipe was asked for"
            # What was not sent yet goes nowhere.
            with suppress(BrokenPipeError):
                pipe.close()

    def _death(self) -> ChildDiedError:
        return ChildDiedError(f"ended with status {self._process.wait()}; {self.last_words()}")


def _own_environment() -> dict[str, str]:
    """This process's environment without what makes it a rank."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_RANKS)}


def _open_log(file: Path | None) -> BinaryIO:
    if file is None:
        return tempfile.TemporaryFile()
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("a+b")
