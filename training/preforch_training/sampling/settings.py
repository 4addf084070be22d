"""How responses are drawn, and how the engine runs that draws them. No model library is loaded here:
configurations are made of it."""

from typing import Annotated, Literal

from preforch_models.objectives import Record
from pydantic import Field

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class Engine(Record):
    """`[policy.engine]`: how vLLM runs. Only `dtype` changes what is drawn, and it alone belongs in recipes.

    Every request has a seed of its own, so neither the number of engines nor how many responses one of them
    writes at a time decides a response, but for the last bits of a sum on a GPU, whose kernels may differ by
    batch size; VLLM_BATCH_INVARIANT=1 in the environment is vLLM's own remedy (not run).
    """

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one copy of the model."""
    data_parallel_size: int = Field(default=1, ge=1)
    """Engines side by side, each a process with a copy of the model and its share of the requests."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that an engine takes. A CPU takes `cpu_kv_cache_gib`."""
    dtype: Dtype = "auto"
    """Of weights and key-value cache. `auto`: the checkpoint's on a GPU, float32 on a CPU."""
    max_num_seqs: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Responses that an engine writes at a time. `auto`: vLLM's choice for the hardware."""
    cpu_kv_cache_gib: int = Field(default=1, ge=1)
    """GiB of an engine's key-value cache on a CPU; a GPU's is what `gpu_memory_utilization` leaves."""


class Sampling(Record):
    """What decides a response besides policy, prompt and seed: in online rounds, in the report and in the
    demo."""

    temperature: float
    top_p: float
    max_tokens: int
    dtype: Dtype
