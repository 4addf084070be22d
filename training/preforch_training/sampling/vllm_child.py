"""The child program that samples with vLLM: `python -m preforch_training.sampling.vllm_child PARENT`.

In:  the parent's process id; jobs on stdin (`preforch_training.sampling.wire`).
Out: replies on what was stdout. All else that this process or a library prints, in C++ too, goes to stderr.

One engine serves all jobs. Between them the process sleeps in a read; it ends with the end of stdin, with an
error of vLLM, and with its parent, however that dies.
"""

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from preforch_models.child_process import die_with_parent
from preforch_models.conditioning.members import MOST_AT_ONCE, engine_rank
from tqdm import tqdm

from preforch_training.run import peak_memory_mib
from preforch_training.sampling.wire import (
    Answer,
    Failure,
    Job,
    JobOutcome,
    NotLoaded,
    Progress,
    TokenResponse,
    line_of,
)

if TYPE_CHECKING:
    # Importing vLLM takes seconds and reads the environment.
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

Report = Callable[[Progress], None]


def main(parent: int) -> int:
    """Answer jobs until there are no more; the exit status."""
    jobs, replies = _take_pipes()
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        return 1  # it died before this process was ready
    # Ctrl-C reaches the whole process group; what becomes of this process is for the parent to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine: LLM | None = None
    for line in jobs:
        job = Job.model_validate_json(line)
        # Whatever vLLM raises, the parent is to hear it; what the engine is worth afterwards nobody knows.
        try:
            if engine is None:
                engine = _start(job)
                outcome: JobOutcome = _generate(engine, job, partial(_send, replies))
            else:
                outcome = _again(engine, job, partial(_send, replies))
        except Exception as error:
            traceback.print_exc()
            outcome = Failure(error=f"{type(error).__name__}: {error}")
        _send(replies, outcome)
        if isinstance(outcome, Failure):
            return 1
    if engine is not None:
        _leave()
    return 0


def _leave() -> NoReturn:
    """End the process. After vLLM the interpreter would spend seconds on freeing what goes with it anyway."""
    from vllm.distributed import destroy_distributed_environment, destroy_model_parallel

    # They remove vLLM's file in the temporary folder.
    destroy_model_parallel()
    destroy_distributed_environment()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the parent, out of reach of whatever prints, reads or starts processes here."""
    jobs, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return jobs, replies


def _send(replies: BinaryIO, record: Progress | JobOutcome) -> None:
    replies.write(line_of(record))
    replies.flush()


def _start(job: Job) -> "LLM":
    """An engine on the job's policy."""
    # vLLM reads its settings from the environment when it is imported.
    os.environ |= {
        # The engine in this process: one child, which dies with its parent, instead of two.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(job.engine.cpu_kv_cache_gib),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    # As many threads as the trainer has, not one for every core.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    import torch
    from vllm import LLM

    return LLM(**engine_arguments(job, on_gpu=torch.cuda.is_available()))


def engine_arguments(job: Job, *, on_gpu: bool) -> dict[str, Any]:
    """What `vllm.LLM` is given."""
    engine = job.engine
    return {
        "model": job.policy,
        "skip_tokenizer_init": True,
        "max_model_len": job.max_model_len,
        "dtype": "float32" if engine.dtype == "auto" and not on_gpu else engine.dtype,
        "enforce_eager": not on_gpu,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "max_num_seqs": None if engine.max_num_seqs == "auto" else engine.max_num_seqs,
        # A prompt cut in two rewinds its request's generator, which only a GPU's can do (vLLM 0.32).
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(job.max_model_len, 8192),
        "generation_config": "vllm",
        "seed": 0,
        **_adapter_arguments(job),
    }


def _adapter_arguments(job: Job) -> dict[str, Any]:
    if not job.adapters:
        return {}
    return {
        "enable_lora": True,
        "max_lora_rank": engine_rank(job.adapter_rank),
        "max_loras": min(len(job.adapters), MOST_AT_ONCE),
        "max_cpu_loras": len(job.adapters),
    }


def _again(engine: "LLM", job: Job, report: Report) -> Answer | NotLoaded:
    """Answer a job with an engine that has answered others before."""
    from preforch_training.sampling.reloading import ReloadError, reload_in_place

    if job.reload:
        try:
            reload_in_place(engine, Path(job.policy))
        except ReloadError as error:
            return NotLoaded(reason=str(error))
    # Also where the weights stay, so that a response depends on its job alone and not on the jobs before.
    if not engine.reset_prefix_cache():
        return NotLoaded(reason="vLLM does not give up the prefix cache of the jobs before")
    return _generate(engine, job, report)


def _generate(engine: "LLM", job: Job, report: Report) -> Answer:
    prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in job.requests]
    engine.enqueue(prompts, _sampling_parameters(job), lora_request=_adapters(job), use_tqdm=False)
    outputs = engine.wait_for_completion(use_tqdm=partial(_ReportedBar, report=report))
    return Answer(
        responses=tuple(
            tuple(_response(o.token_ids, o.finish_reason, job) for o in out.outputs) for out in outputs
        ),
        peak_memory_mib=peak_memory_mib(),
    )


def _adapters(job: Job) -> "list[LoRARequest | None] | None":
    """By request. Numbers start at 1; the same adapter has the same one."""
    if not job.adapters:
        return None
    from vllm.lora.request import LoRARequest

    known: dict[str | None, LoRARequest | None] = {None: None}
    for number, (name, folder) in enumerate(job.adapters.items(), start=1):
        known[name] = LoRARequest(name, number, folder)
    return [known[request.adapter] for request in job.requests]


def _sampling_parameters(job: Job) -> "list[SamplingParams]":
    from vllm import SamplingParams

    return [
        SamplingParams(
            n=request.n,
            seed=request.seed,
            temperature=job.temperature,
            top_p=job.top_p,
            max_tokens=job.max_tokens,
            stop_token_ids=[job.end_id],
            detokenize=False,
        )
        for request in job.requests
    ]


def _response(token_ids: list[int], finish_reason: str | None, job: Job) -> TokenResponse:
    ended = bool(token_ids) and token_ids[-1] == job.end_id
    return TokenResponse(
        token_ids=tuple(token_ids[:-1] if ended else token_ids), finished=ended and finish_reason == "stop"
    )


class _ReportedBar(tqdm):  # type: ignore[type-arg]  # tqdm is generic for type checkers only
    """vLLM's own bar, whose parent shows it: as often as tqdm would draw, the count goes to `report`."""

    # tqdm's monitor would draw, and so write to the pipe, from a thread of its own.
    monitor_interval = 0

    def __init__(self, *, report: Report, total: int, **looks: object) -> None:
        del looks
        self._report = report
        # Whatever TQDM_DISABLE says: vLLM divides by the bar's seconds, which a disabled one does not count.
        super().__init__(total=total, file=io.StringIO(), disable=False)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Report instead of drawing."""
        self._report(Progress(done=int(self.n)))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
