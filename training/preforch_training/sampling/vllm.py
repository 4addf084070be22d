"""Sampling responses from policy folders with vLLM, in a process of its own.

In:  a policy folder and requests: messages, rounded weights, how many responses, a seed.
Out: for each request its responses as token ids without the end token, and as text.

One process with one engine serves all calls; starting it takes a hundred times as long as giving it other
weights (`benchmarks/reload.py`). It shares nothing with the trainer: a kill of either leaves no process, and
the next call starts a new one.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol, Self

import torch
from preforch_models.conversation import Message
from preforch_models.manifest import digest
from preforch_models.weights import Weights
from tqdm import tqdm

from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.sampling.child_process import ChildDiedError, VllmProcess
from preforch_training.sampling.wire import Answer, Failure, Job, NotLoaded, TokenRequest


class SamplerError(OSError):
    """vLLM did not deliver; the message says why."""


@dataclass(frozen=True)
class SampleRequest:
    """`weights` lie on the grid of the context already."""

    messages: tuple[Message, ...]
    weights: Weights
    n: int
    seed: int


@dataclass(frozen=True)
class Generation:
    """One response. `finished`: the policy ended it, the token limit did not."""

    token_ids: tuple[int, ...]
    text: str
    finished: bool


class Sampler(Protocol):
    """What draws responses."""

    @property
    def peak_memory_mib(self) -> float:
        """Largest peak memory of the processes that sampled so far."""
        ...

    def sample(
        self,
        policy: Path,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
    ) -> list[list[Generation]]:
        """`n` generations for each request, in order."""
        ...

    def close(self) -> None:
        """Give back all memory, a GPU's too. The sampler stays usable: the next call takes what it needs."""
        ...


@dataclass(frozen=True)
class _Engine:
    """A running child. `shape`: what all its policies have in common; `contents`: whose weights it holds."""

    process: VllmProcess
    shape: str
    contents: str


@dataclass
class VllmSampler:
    """`vllm.LLM` in a child process that stays between calls: use it in a `with` statement, or close it.

    A policy of the same config.json and max_model_len as the one before is loaded in place; any other, or one
    whose weights cannot be shown to have arrived, gets a new process. What is drawn does not depend on the
    calls before. The kernel ends the process with the thread that started it, so call from one that stays.

    The process keeps its memory while it waits: on a CPU the key-value cache and about 0.7 GiB. On a GPU it
    would keep nearly all of it from rewards and training, so there it ends with each call (not run).
    """

    log: Path | None = None
    """Where all that vLLM prints is appended. None: nowhere, but an error quotes its last lines."""
    kv_cache_gib: int = 1
    """Memory for the key-value cache on a CPU; a GPU uses vLLM's own share."""
    peak_memory_mib: float = field(default=0.0, init=False)
    """See `Sampler`; since `reset_peak_memory`, where that was called."""
    _engine: _Engine | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._engine.process.pid if self._engine is not None else None

    def close(self) -> None:
        """See `Sampler`."""
        if self._engine is not None:
            self._engine.process.end()
            self._engine = None

    def reset_peak_memory(self) -> None:
        """Count the peak memory afresh, as a new stage does."""
        self.peak_memory_mib = 0.0
        if self._engine is not None and self._engine.process.alive:
            self._engine.process.reset_peak_memory()

    def sample(
        self,
        policy: Path,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
    ) -> list[list[Generation]]:
        """See `Sampler`. Raises ValueError for a prompt that leaves no room, SamplerError when vLLM fails."""
        if not requests:
            return []
        reader = PolicyTokenizer(policy)
        prompts = [reader.prompt_ids(request.messages, request.weights) for request in requests]
        longest = max(map(len, prompts))
        if longest + max_tokens > reader.card.max_model_len:
            raise ValueError(
                f"a prompt of {longest} tokens and max_tokens {max_tokens} exceed the policy's "
                f"max_model_len {reader.card.max_model_len}"
            )
        job = Job(
            policy=str(policy.resolve()),
            reload=False,
            max_model_len=reader.card.max_model_len,
            end_id=reader.end_id,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            kv_cache_gib=self.kv_cache_gib,
            requests=tuple(
                TokenRequest(prompt_ids=tuple(ids), n=request.n, seed=request.seed)
                for ids, request in zip(prompts, requests, strict=True)
            ),
        )
        answer = self._answer(
            job, shape=_shape(policy, job), contents=_contents(policy, reader.card.revision)
        )
        self.peak_memory_mib = max(self.peak_memory_mib, answer.peak_memory_mib)
        if torch.cuda.is_available():
            # vLLM keeps nearly all of a GPU's memory, which rewards and training want next.
            self.close()
        return [
            [Generation(item.token_ids, reader.text(item.token_ids), item.finished) for item in group]
            for group in answer.responses
        ]

    def _answer(self, job: Job, *, shape: str, contents: str) -> Answer:
        """The answer of the child that is there where it will do, else of a new one."""
        there = self._engine
        if there is not None and there.shape == shape and there.process.alive:
            reload = there.contents != contents
            self._engine = _Engine(there.process, shape, contents)
            outcome = self._ask(there.process, job.model_copy(update={"reload": reload}))
            if isinstance(outcome, Answer):
                return outcome
            print(f"{job.policy}: starting vLLM again, since {outcome.reason}", file=sys.stderr, flush=True)
        self.close()
        process = VllmProcess(self.log)
        self._engine = _Engine(process, shape, contents)
        outcome = self._ask(process, job)
        assert isinstance(outcome, Answer), "a new engine loads nothing in place"
        return outcome

    def _ask(self, process: VllmProcess, job: Job) -> Answer | NotLoaded:
        """The outcome of a job; a process that gave none, or was left in the middle of one, is ended."""
        outcome: Answer | NotLoaded | Failure | None = None
        try:
            with _bar(sum(request.n for request in job.requests)) as show:
                outcome = process.ask(job, show)
        except ChildDiedError as error:
            raise SamplerError(f"the vLLM process on {job.policy} {error}") from None
        finally:
            # Also after Ctrl-C: a process left in the middle of a job answers the next one with its rest.
            if outcome is None:
                self._forget(process)
        if isinstance(outcome, Failure):
            message = f"vLLM failed on {job.policy}: {outcome.error}; {process.last_words()}"
            self._forget(process)
            raise SamplerError(message)
        return outcome

    def _forget(self, process: VllmProcess) -> None:
        process.kill()
        self._engine = None


def _shape(policy: Path, job: Job) -> str:
    """What a policy must have in common with the one before to be loaded in place."""
    config = json.loads((policy / "config.json").read_bytes())
    # Who wrote the file, and how a trainer sets the model up, say nothing about the model.
    for key in ("transformers_version", "use_cache"):
        config.pop(key, None)
    return digest({"config": config, "max_model_len": job.max_model_len, "kv_cache_gib": job.kv_cache_gib})


def _contents(policy: Path, revision: str) -> str:
    """What changes whenever a policy does: the card's revision, and inode, size and time of each file."""
    states = {path.name: path.stat() for path in sorted(policy.iterdir())}
    files = {name: [state.st_ino, state.st_size, state.st_ctime_ns] for name, state in states.items()}
    return digest({"folder": str(policy.resolve()), "revision": revision, "files": files})


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar from the first report on: the start of an engine is no part of the rate."""
    bar: tqdm[NoReturn] | None = None

    def show(done: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, desc="sampling", unit="response")
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
