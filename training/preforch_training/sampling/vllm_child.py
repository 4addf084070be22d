"""The child program that samples with vLLM: `python -m preforch_training.sampling.vllm_child FOLDER`.

In:  `FOLDER/job.json` (Job).
Out: `FOLDER/answer.json` (Answer), written whole or not at all.
"""

import os
import signal
import sys
from pathlib import Path

from preforch_models.child_process import die_with_parent
from preforch_models.objectives import Record

from preforch_training.run import peak_memory_mib

JOB_FILE = "job.json"
ANSWER_FILE = "answer.json"


class TokenRequest(Record):
    """One prompt as token ids."""

    prompt_ids: tuple[int, ...]
    n: int
    seed: int


class Job(Record):
    """Everything the child needs. `parent`: process id of who started it."""

    parent: int
    policy: str
    max_model_len: int
    end_id: int
    temperature: float
    top_p: float
    max_tokens: int
    kv_cache_gib: int
    requests: tuple[TokenRequest, ...]


class TokenResponse(Record):
    """Token ids without the end token."""

    token_ids: tuple[int, ...]
    finished: bool


class Answer(Record):
    """Responses by request; `error` instead, when vLLM failed."""

    responses: tuple[tuple[TokenResponse, ...], ...] = ()
    peak_memory_mib: float = 0.0
    error: str = ""


def main(folder: Path) -> int:
    """Run the job of a folder; the exit status."""
    job = Job.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))
    die_with_parent(signal.SIGKILL)
    if os.getppid() != job.parent:
        return 1  # it died before this process was ready
    try:
        answer = _generate(job)
    except Exception as error:
        answer = Answer(error=f"{type(error).__name__}: {error}")
    partial = folder / f"{ANSWER_FILE}.partial"
    partial.write_text(answer.model_dump_json(), encoding="utf-8")
    partial.replace(folder / ANSWER_FILE)
    return 1 if answer.error else 0


def _generate(job: Job) -> Answer:
    # vLLM reads its settings from the environment when it is imported.
    os.environ |= {
        # The engine in this process: one child, which dies with its parent, instead of two.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(job.kv_cache_gib),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # As many threads as the trainer has, not one for every core.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    import torch
    from vllm import LLM, SamplingParams

    on_gpu = torch.cuda.is_available()
    engine = LLM(
        model=job.policy,
        skip_tokenizer_init=True,
        max_model_len=job.max_model_len,
        dtype="auto" if on_gpu else "float32",
        enforce_eager=not on_gpu,
        # A prompt cut in two rewinds its request's generator, which only a GPU's generator can do (vLLM 0.32).
        enable_chunked_prefill=False,
        max_num_batched_tokens=max(job.max_model_len, 8192),
        generation_config="vllm",
        seed=0,
    )
    parameters = [
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
    prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in job.requests]
    outputs = engine.generate(prompts, parameters, use_tqdm=True)
    return Answer(
        responses=tuple(
            tuple(_response(o.token_ids, o.finish_reason, job) for o in out.outputs) for out in outputs
        ),
        peak_memory_mib=peak_memory_mib(),
    )


def _response(token_ids: list[int], finish_reason: str | None, job: Job) -> TokenResponse:
    ended = bool(token_ids) and token_ids[-1] == job.end_id
    return TokenResponse(
        token_ids=tuple(token_ids[:-1] if ended else token_ids), finished=ended and finish_reason == "stop"
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
