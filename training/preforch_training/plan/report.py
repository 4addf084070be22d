"""The plan of a run as text: what was counted with, and every table.

In:  a configuration, and what the user says of machines and data. Out: Markdown.
"""

import torch

from preforch_training.config import RunConfig
from preforch_training.plan.counts import assumed_pairs, count_pairs, written_bytes
from preforch_training.plan.machine import Part, fetches, missing, parts
from preforch_training.plan.sizes import ModelSize, find_config, measure, size_of
from preforch_training.plan.tables import (
    Question,
    fetch_table,
    memory_table,
    models_table,
    sampling_line,
    work_table,
)
from preforch_training.plan.work import Scale, loads
from preforch_training.policy.base_model import new_model
from preforch_training.policy.config import DEMO

FORMULA = """\
FLOPs: 6 N D to train, 2 N D more with gradient checkpointing, 2 N D to read or write; N: all parameters but
the input embeddings, D: tokens. LoRA takes up to a third less. The report's responses are not counted. GPU
hours: FLOPs / rate. Memory: 16 bytes a trained parameter (32-bit weight, gradient, AdamW), the checkpoint's
own width for a frozen one; activations 34 x rows x tokens x hidden a layer, logits 8 x rows x tokens x
vocabulary; 2 to 5 GiB come on top."""


def describe(config: RunConfig, question: Question, *, title: str, reachable: bool) -> str:
    """The whole plan. `reachable`: whether the hub can be asked for a config.json."""
    sizes = model_sizes(config, question, reachable=reachable)
    counted = count_pairs(config)
    scale = Scale(
        pairs=counted or assumed_pairs(config, question.pairs),
        nproc=question.nproc,
        row_tokens=question.row_tokens,
        sizes=sizes,
    )
    work, wanted = list(loads(config, scale)), list(fetches(config, sizes))
    disk = written_bytes(config, sizes) + sum(entry.size or 0 for entry in wanted if not entry.there)
    lacking = missing(
        config, wanted, disk=disk, nproc=question.nproc, gpu_gib=question.gpu_gib, reachable=reachable
    )
    base = None if config.policy is None else sizes[config.policy.base]
    sampling = "" if config.policy is None or base is None else sampling_line(config.policy, base, question)
    rows = "as long as each stage allows" if scale.row_tokens is None else f"of {scale.row_tokens} tokens"
    many = f"counted in {config.run.folder}" if counted else f"{question.pairs:,} of each kind, assumed"
    machines = f"{question.nproc} x {question.gpu_gib:g} GiB at {question.tflops:g} TFLOP/s"
    return "\n\n".join(
        [
            f"# {title}: {machines}",
            f"Pairs: {many}. Rows (prompt with response): {rows}.",
            "## Models",
            models_table(_listed(config), sizes),
            "## Memory of each GPU, GiB",
            memory_table(work, question),
            *([sampling] if sampling else []),
            "## Work",
            work_table(work, question),
            FORMULA,
            "## To fetch",
            fetch_table(wanted),
            "## Missing on this machine",
            "\n".join(f"- {line}" for line in lacking) or "nothing",
        ]
    )


def model_sizes(config: RunConfig, question: Question, *, reachable: bool) -> dict[str, ModelSize | None]:
    """Sizes by model; None where no config.json is to be had. Raises ValueError for `--config-of` a model
    that the run does not have."""
    sizes: dict[str, ModelSize | None] = {}
    for part in parts(config):
        folder = find_config(
            part.model, revision=part.revision, folders=question.configs, reachable=reachable
        )
        sizes[part.model] = None if folder is None else measure(folder, part.use)
    unused = question.configs.keys() - sizes.keys()
    if unused:
        raise ValueError(f"--config-of {', '.join(sorted(unused))}: the run's models are {sorted(sizes)}")
    if config.policy is not None and config.policy.base == DEMO:
        shape, most = config.policy.scratch, config.policy.max_model_len
        with torch.device("meta"):
            sizes[DEMO] = size_of(new_model(shape.vocabulary, shape, max_model_len=most, seed=0))
    return sizes


def _listed(config: RunConfig) -> list[Part]:
    made = config.policy is not None and config.policy.base == DEMO
    return [*parts(config), *([Part(DEMO, "main", "policy")] if made else [])]
