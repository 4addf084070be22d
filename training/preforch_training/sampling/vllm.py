"""Sampling responses from a policy folder with vLLM, in a process of its own.

In:  a policy folder and requests: messages, rounded weights, how many responses, a seed.
Out: for each request its responses as token ids without the end token, and as text.

vLLM shares no process with the trainer: its memory is returned when it is done, and a kill of either leaves nothing.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from preforch_models.conversation import Message
from preforch_models.weights import Weights

from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.sampling.vllm_child import ANSWER_FILE, JOB_FILE, Answer, Job, TokenRequest


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


@dataclass
class VllmSampler:
    """`vllm.LLM.generate` in a child process. One call starts one engine, so give it everything at once."""

    kv_cache_gib: int = 1
    """Memory for the key-value cache on a CPU; a GPU uses vLLM's own share."""
    peak_memory_mib: float = field(default=0.0, init=False)

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
            parent=os.getpid(),
            policy=str(policy.resolve()),
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
        answer = _run_child(job)
        self.peak_memory_mib = max(self.peak_memory_mib, answer.peak_memory_mib)
        return [
            [Generation(item.token_ids, reader.text(item.token_ids), item.finished) for item in group]
            for group in answer.responses
        ]


def _run_child(job: Job) -> Answer:
    """Start the child, wait, read its answer. Its progress bar and warnings go to this process's stderr."""
    with tempfile.TemporaryDirectory(prefix="preforch-sample-") as name:
        folder = Path(name)
        (folder / JOB_FILE).write_text(job.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "preforch_training.sampling.vllm_child", name]
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
        ).returncode
        file = folder / ANSWER_FILE
        if not file.is_file():
            raise SamplerError(
                f"the vLLM process ended with status {code} and no answer; its last words are above"
            )
        answer = Answer.model_validate_json(file.read_text(encoding="utf-8"))
    if answer.error:
        raise SamplerError(f"vLLM failed on {job.policy}: {answer.error}")
    return answer
