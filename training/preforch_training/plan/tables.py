"""A plan as Markdown.

In:  sizes, loads, downloads. Out: tables and sentences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preforch_training.plan.machine import GIB, Fetch, Part
from preforch_training.plan.sizes import ModelSize
from preforch_training.plan.work import Load
from preforch_training.policy.config import Config as PolicyConfig
from preforch_training.statistics.markdown import table


@dataclass(frozen=True)
class Question:
    """What a plan is made for. `pairs`: of every objective and overall, where no data are there to count;
    `configs`: folder with the config.json of a hub id that is out of reach."""

    nproc: int = 1
    gpu_gib: float = 80.0
    tflops: float = 150.0
    pairs: int = 100_000
    row_tokens: int | None = None
    configs: Mapping[str, Path] = field(default_factory=dict)


def models_table(listed: Sequence[Part], sizes: Mapping[str, ModelSize | None]) -> str:
    """Parameters of every model."""
    rows = []
    for part in listed:
        size = sizes[part.model]
        number = f"unknown: needs config.json of {part.model}" if size is None else f"{size.parameters:,}"
        rows.append([part.model, part.use, number, None if size is None else f"{size.stored / GIB:.2f}"])
    return table(["model", "used as", "parameters", "GiB stored"], rows)


def memory_table(work: list[Load], question: Question) -> str:
    """What each training holds on each GPU."""
    n = question.nproc
    header = ["stage", "weights", "gradients", "optimiser", "activations", "sum"]
    rows: list[list[str]] = []
    for load in work:
        if (memory := load.memory) is None:
            continue
        cells = [memory.weights, memory.gradients, memory.optimiser, memory.activations]
        row = [load.stage, *(f"{cell / GIB:.1f}" for cell in cells), _sum(memory.on(), question)]
        rows.append(row if n == 1 else [*row, _sum(memory.on(n), question)])
    return table(header if n == 1 else [*header, f"sum, fsdp2 over {n}"], rows)


def _sum(value: float, question: Question) -> str:
    over = " (does not fit)" if value / GIB > question.gpu_gib else ""
    return f"{value / GIB:.1f}{over}"


def sampling_line(shared: PolicyConfig, size: ModelSize, question: Question) -> str:
    """What an engine of vLLM takes, and how many responses have room in it."""
    engine, length = shared.engine, shared.max_model_len
    gpus = engine.tensor_parallel_size
    share = engine.gpu_memory_utilization * question.gpu_gib * GIB * gpus
    number = 4 if engine.dtype == "float32" else 2
    weights, token = number * size.parameters, number * size.cached
    room = share - weights
    said = (
        f"{weights / GIB:.1f} of weights, and room for {room / token:,.0f} tokens: "
        f"{room / token / length:,.0f} responses of {length} tokens at a time"
        if room > 0
        else f"{weights / GIB:.1f} of weights alone do not fit"
    )
    taken = "a GPU" if gpus == 1 else f"{gpus} GPUs"
    return f"vLLM takes {engine.gpu_memory_utilization:.0%} of {taken}, {share / GIB:.1f}: {said}."


def work_table(work: list[Load], question: Question) -> str:
    """Tokens and hours of every stage."""
    rows: list[list[str]] = []
    for load in work:
        flops = load.flops
        hours = "unknown" if flops is None else _hours(flops, question)
        amount = "unknown" if flops is None else f"{flops:.2e}"
        rows.append([load.stage, f"{load.tokens:,.0f}", amount, hours])
    known = [load.flops for load in work if load.flops is not None]
    total = _hours(sum(known), question) + ("" if len(known) == len(work) else " and what is unknown")
    rows.append(["all", f"{sum(load.tokens for load in work):,.0f}", f"{sum(known):.2e}", total])
    return table(["stage", "tokens", "FLOPs", "GPU hours"], rows)


def _hours(flops: float, question: Question) -> str:
    return f"{flops / (question.tflops * 1e12) / 3600:.2f}"


def fetch_table(wanted: list[Fetch]) -> str:
    """What comes from the hub."""
    if not wanted:
        return "nothing"
    rows = [
        [
            entry.what,
            entry.revision,
            "unknown" if entry.size is None else f"{entry.size / GIB:.2f}",
            "in the cache" if entry.there else "to fetch",
        ]
        for entry in wanted
    ]
    return table(["what", "revision", "GiB", ""], rows)
