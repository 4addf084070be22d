"""Sampling responses from policy folders with vLLM, in processes of its own.

In:  a policy folder and requests: messages, rounded weights, how many responses, a seed.
Out: for each request its responses as token ids without the end token, and as text.

One process with one engine serves all calls, or several side by side do; starting one takes a hundred times
as long as giving it other weights (`benchmarks/reload.py`). They share nothing with the trainer: a kill of
either leaves no process, and the next call starts new ones.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import torch
from preforch_models.conversation import Message
from preforch_models.manifest import digest
from preforch_models.weights import Weights

from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.sampling.engines import Engines
from preforch_training.sampling.settings import Engine
from preforch_training.sampling.wire import Job, TokenRequest


@dataclass(frozen=True)
class SampleRequest:
    """`weights` lie on the grid of the context already. `written`: what the context says in their place, for
    each objective."""

    messages: tuple[Message, ...]
    weights: Weights
    n: int
    seed: int
    written: tuple[str, ...] | None = None


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


@dataclass
class VllmSampler:
    """`vllm.LLM` in child processes that stay between calls: use it in a `with` statement, or close it.

    A policy of the same config.json and max_model_len as the one before is loaded in place; any other, or one
    whose weights cannot be shown to have arrived, gets new processes. What is drawn does not depend on the
    calls before, nor on how many processes share a call. The kernel ends them with the thread that called, so
    call from one that stays.

    A process keeps its memory while it waits: on a CPU the key-value cache and about 0.7 GiB. On a GPU it
    would keep nearly all of it from rewards and training, so there it ends with each call (not run).
    """

    engine: Engine = field(default_factory=Engine)
    """How vLLM runs."""
    log: Path | None = None
    """Where all that vLLM prints is appended. None: nowhere, but an error quotes its last lines."""
    peak_memory_mib: float = field(default=0.0, init=False)
    """See `Sampler`; since `reset_peak_memory`, where that was called."""
    _engines: Engines = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._engines = Engines(self.engine, self.log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the first child, None while there is none."""
        return next(iter(self.pids), None)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of all children."""
        return self._engines.pids

    def close(self) -> None:
        """See `Sampler`."""
        self._engines.end()

    def reset_peak_memory(self) -> None:
        """Count the peak memory afresh, as a new stage does."""
        self.peak_memory_mib = 0.0
        self._engines.reset_peak_memory()

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
        prompts = prompts_of(reader, requests, max_tokens=max_tokens)
        conditioning = reader.card.conditioning
        chosen = [conditioning.choose(request.weights) for request in requests]
        job = Job(
            policy=str(policy.resolve()),
            reload=False,
            max_model_len=reader.card.max_model_len,
            end_id=reader.end_id,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            engine=self.engine,
            requests=tuple(
                TokenRequest(prompt_ids=tuple(ids), n=request.n, seed=request.seed, adapter=adapter)
                for ids, request, adapter in zip(prompts, requests, chosen, strict=True)
            ),
            adapters={name: str(folder) for name, folder in conditioning.adapters(policy.resolve()).items()},
            adapter_rank=conditioning.adapter_rank,
        )
        # Every n-th request: neighbours, which may be alike in length, go to different processes.
        count = min(self.engine.data_parallel_size, len(requests))
        shares = [job.model_copy(update={"requests": job.requests[i::count]}) for i in range(count)]
        answers = self._engines.answer(
            shares, shape=_shape(policy, job), contents=_contents(policy, reader.card.revision)
        )
        self.peak_memory_mib = max(self.peak_memory_mib, *(answer.peak_memory_mib for answer in answers))
        if torch.cuda.is_available():
            # vLLM keeps nearly all of a GPU's memory, which rewards and training want next.
            self.close()
        return [
            [
                Generation(item.token_ids, reader.text(item.token_ids), item.finished)
                for item in answers[i % count].responses[i // count]
            ]
            for i in range(len(requests))
        ]


def prompts_of(
    reader: PolicyTokenizer, requests: Sequence[SampleRequest], *, max_tokens: int
) -> list[list[int]]:
    """Prompts as token ids. Raises ValueError for one that leaves no room for a response."""
    prompts = [
        reader.prompt_ids(request.messages, request.weights)
        if request.written is None
        else reader.written_ids(request.messages, request.written)
        for request in requests
    ]
    longest = max(map(len, prompts))
    if longest + max_tokens > reader.card.max_model_len:
        raise ValueError(
            f"a prompt of {longest} tokens and max_tokens {max_tokens} exceed the policy's "
            f"max_model_len {reader.card.max_model_len}"
        )
    return prompts


def _shape(policy: Path, job: Job) -> str:
    """What a policy must have in common with the one before to be loaded in place."""
    config = json.loads((policy / "config.json").read_bytes())
    # Who wrote the file, and how a trainer sets the model up, say nothing about the model.
    for key in ("transformers_version", "use_cache"):
        config.pop(key, None)
    return digest({"config": config, "max_model_len": job.max_model_len, "adapters": job.adapters})


def _contents(policy: Path, revision: str) -> str:
    """What changes whenever a policy does: the card's revision, and inode, size and time of each file."""
    states = {path.name: path.stat() for path in sorted(policy.iterdir())}
    files = {name: [state.st_ino, state.st_size, state.st_ctime_ns] for name, state in states.items()}
    return digest({"folder": str(policy.resolve()), "revision": revision, "files": files})
