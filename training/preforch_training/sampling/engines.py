"""The vLLM processes of a sampler: as many as `data_parallel_size`, asked side by side.

In:  one job for each process (`preforch_training.sampling.wire`).
Out: their answers in order, or SamplerError; a process that gave none is gone then, and so are the others.

The kernel ends a process with the thread that started it, so they are started by the caller's thread, while
threads of their own wait for the answers.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NoReturn

import torch
from tqdm import tqdm

from preforch_training.sampling.child_process import ChildDiedError, VllmProcess
from preforch_training.sampling.memory import NoRoomError, check_room
from preforch_training.sampling.settings import Engine
from preforch_training.sampling.wire import Answer, Failure, Job, NotLoaded
from preforch_training.tuning.device_memory import free_memory


class SamplerError(OSError):
    """vLLM did not deliver; the message says why."""


@dataclass
class _Running:
    """A process and whose weights its engine holds."""

    process: VllmProcess
    contents: str


class Engines:
    """No process, or all that one call needs."""

    def __init__(self, engine: Engine, log: Path | None) -> None:
        self._engine, self._log = engine, log
        self._running: list[_Running] = []
        self._shape = ""

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the children."""
        return tuple(running.process.pid for running in self._running)

    def answer(self, jobs: Sequence[Job], *, shape: str, contents: str) -> list[Answer]:
        """The answers of the processes that are there where they will do, else of new ones.

        `shape`: what policies have in common that one engine can hold one after the other; `contents`: whose
        weights these are. Raises SamplerError.
        """
        if self._usable(len(jobs), shape, contents):
            outcomes = self._ask(jobs, contents)
            failed = [outcome for outcome in outcomes if isinstance(outcome, NotLoaded)]
            if not failed:
                return [outcome for outcome in outcomes if isinstance(outcome, Answer)]
            print(
                f"{jobs[0].policy}: starting vLLM again, since {failed[0].reason}",
                file=sys.stderr,
                flush=True,
            )
        self.end()
        self._start(jobs, shape, contents)
        answers = self._ask(jobs, contents)
        assert all(isinstance(answer, Answer) for answer in answers), "a new engine loads nothing in place"
        return [answer for answer in answers if isinstance(answer, Answer)]

    def end(self) -> None:
        """End all processes and give their memory back."""
        for running in self._running:
            running.process.end()
        self._running = []

    def reset_peak_memory(self) -> None:
        """Start the processes' peak memory afresh."""
        for running in self._running:
            if running.process.alive:
                running.process.reset_peak_memory()

    def _usable(self, count: int, shape: str, contents: str) -> bool:
        """Whether the first `count` processes can answer."""
        asked = self._running[:count]
        if len(asked) < count or self._shape != shape or not all(one.process.alive for one in asked):
            return False
        # What several processes hold of a model is not compared after a load in place.
        return self._engine.tensor_parallel_size == 1 or all(one.contents == contents for one in asked)

    def _start(self, jobs: Sequence[Job], shape: str, contents: str) -> None:
        """As many processes as there are jobs, each on its own GPUs where there are any."""
        policy = Path(jobs[0].policy)
        # What models and trainers of this process leave.
        free_memory()
        try:
            check_room(policy, self._engine.model_copy(update={"data_parallel_size": len(jobs)}))
        except NoRoomError as error:
            raise SamplerError(str(error)) from None
        self._shape = shape
        for place in range(len(jobs)):
            process = VllmProcess(self._log, variables=self._devices(place))
            self._running.append(_Running(process, contents))

    def _devices(self, place: int) -> dict[str, str]:
        """The GPUs of one process, as CUDA's variable names them."""
        if not torch.cuda.is_available():
            return {}
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
        return {"CUDA_VISIBLE_DEVICES": device_share(names, place, self._engine.tensor_parallel_size)}

    def _ask(self, jobs: Sequence[Job], contents: str) -> list[Answer | NotLoaded]:
        """All outcomes. After an error, or Ctrl-C, no process is left: one in the middle of a job would
        answer the next one with its rest."""
        asked = self._running[: len(jobs)]
        finished = False
        with _bar(jobs) as report, ThreadPoolExecutor(len(jobs)) as threads:
            try:
                futures = []
                for place, (running, job) in enumerate(zip(asked, jobs, strict=True)):
                    reload = running.contents != contents
                    running.contents = contents
                    job = job.model_copy(update={"reload": reload})
                    futures.append(threads.submit(_outcome, running.process, job, report(place)))
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()  # the error that came first
                finished = True
            finally:
                if not finished:
                    # Before the threads are waited for, which only then come to an end.
                    self._kill()
        return [future.result() for future in futures]

    def _kill(self) -> None:
        for running in self._running:
            running.process.kill()
        self._running = []


def device_share(names: Sequence[str], place: int, size: int) -> str:
    """The devices of process number `place`, `size` of them, with a comma between."""
    return ",".join(names[place * size : (place + 1) * size])


def _outcome(process: VllmProcess, job: Job, report: Callable[[int], None]) -> Answer | NotLoaded:
    """One process's outcome. Raises SamplerError where there is none."""
    try:
        outcome = process.ask(job, report)
    except ChildDiedError as error:
        raise SamplerError(f"the vLLM process on {job.policy} {error}") from None
    if isinstance(outcome, Failure):
        raise SamplerError(f"vLLM failed on {job.policy}: {outcome.error}; {process.last_words()}")
    return outcome


@contextmanager
def _bar(jobs: Sequence[Job]) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """One progress bar over all jobs, from the first report on: the start of an engine is no part of the
    rate. Gives each job, by its place, what to report its count to."""
    bar: tqdm[NoReturn] | None = None
    done, lock = [0] * len(jobs), Lock()

    def report(place: int) -> Callable[[int], None]:
        def show(count: int) -> None:
            nonlocal bar
            with lock:
                if bar is None:
                    total = sum(request.n for job in jobs for request in job.requests)
                    bar = tqdm(total=total, desc="sampling", unit="response")
                done[place] = count
                bar.update(sum(done) - bar.n)

        return show

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()
