"""vLLM with other weights: a new process against a load in place, as `VllmSampler` does both.

In:  nothing; two random policies of the demo's size are made (0.9 million parameters).
Out: a Markdown table on stdout. Fails when the two ways draw different responses.

    OMP_NUM_THREADS=1 python benchmarks/reload.py --rounds 5

Beside other work keep to one thread: where cores are shared, threads wait for each other, and a load takes
seconds.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.context import ContextFormat
from preforch_models.conversation import Message
from preforch_models.manifest import Manifest, write_manifest, writing
from preforch_models.weights import round_weights, uniform
from preforch_training.policy.base_model import add_context, new_model, train_tokenizer
from preforch_training.policy.checkpoint import PolicyInfo, save_policy
from preforch_training.policy.config import Scratch
from preforch_training.sampling.vllm import Generation, SampleRequest, VllmSampler
from rounds import mean, ratio
from texts import read_texts

CONTEXT = ContextFormat(objectives=("helpful", "harmless", "humor"), encoding="levels")
MAX_MODEL_LEN = 512


@dataclass
class Timings:
    """Seconds of the clock and of the child's CPU time, for start or load and a few short responses."""

    fresh: list[tuple[float, float]] = field(default_factory=list)
    reloaded: list[tuple[float, float]] = field(default_factory=list)
    same: list[tuple[float, float]] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)
    idle_share: list[float] = field(default_factory=list)
    """CPU time of a waiting child, as a share of one core."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="vLLM with other weights: a new process, or a load in place."
    )
    parser.add_argument("--rounds", type=int, default=5, help="at least 2")
    parser.add_argument("--requests", type=int, default=8, help="prompts that each call answers")
    parser.add_argument("--idle", type=float, default=5.0, help="seconds to watch a waiting child")
    options = parser.parse_args(argv)
    if options.rounds < 2:
        parser.error(f"--rounds is {options.rounds}; an interval needs at least 2")
    with tempfile.TemporaryDirectory() as folder:
        policies = [write_policy(Path(folder) / str(seed), seed=seed) for seed in (1, 2)]
        timings = measure(policies, options)
    print("\n".join(table(timings, options)))


def write_policy(target: Path, *, seed: int, size: Scratch = Scratch()) -> Path:
    """A random policy, of the demo's size unless told otherwise."""
    tokenizer = train_tokenizer(made_texts(), vocabulary=size.vocabulary)
    model = new_model(len(tokenizer), size, max_model_len=MAX_MODEL_LEN, seed=seed)
    add_context(model, tokenizer, CONTEXT, seed=seed)
    with writing(target) as folder:
        save_policy(
            folder,
            model,
            tokenizer,
            PolicyInfo(name="random", kind="base", round=None),
            objectives=CONTEXT.objectives,
            conditioning=ContextConditioning(encoding=CONTEXT.encoding),
            max_model_len=MAX_MODEL_LEN,
        )
        write_manifest(folder, Manifest(kind="policy"))
    return target


def made_texts() -> list[str]:
    """Short prompts, which also teach the tokenizer its vocabulary."""
    return read_texts(None, field="", limit=1000, seed=0, median_words=10)


def measure(policies: Sequence[Path], options: argparse.Namespace) -> Timings:
    """Per round a new process on the first policy, the second and the first in place, the first again."""
    timings = Timings()
    for _ in range(options.rounds):
        with VllmSampler() as sampler:
            first = timed(timings.fresh, sampler, policies[0], options.requests)
            timed(timings.reloaded, sampler, policies[1], options.requests)
            if timed(timings.reloaded, sampler, policies[0], options.requests) != first:
                raise ValueError("a reloaded engine draws other responses than a new one")
            timed(timings.same, sampler, policies[0], options.requests)
            child = psutil.Process(sampler.pid)
            timings.resident_mib.append(child.memory_info().rss / 2**20)
            before = cpu_seconds(child)
            time.sleep(options.idle)
            timings.idle_share.append((cpu_seconds(child) - before) / options.idle)
    return timings


def timed(
    taken: list[tuple[float, float]], sampler: VllmSampler, policy: Path, requests: int
) -> list[list[Generation]]:
    """Short responses, and what they took."""
    asked = [
        SampleRequest(
            messages=(Message(role="user", content=text),),
            weights=round_weights(uniform(CONTEXT.objectives), CONTEXT.units),
            n=1,
            seed=seed,
        )
        for seed, text in enumerate(made_texts()[:requests])
    ]
    cpu = cpu_seconds(psutil.Process(sampler.pid)) if sampler.pid is not None else 0.0
    start = time.perf_counter()
    responses = sampler.sample(policy, asked, temperature=0.7, top_p=1.0, max_tokens=8)
    taken.append((time.perf_counter() - start, cpu_seconds(psutil.Process(sampler.pid)) - cpu))
    return responses


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def table(timings: Timings, options: argparse.Namespace) -> list[str]:
    """Means over rounds with 95% t intervals."""
    rows = [
        ("a new process", timings.fresh),
        ("other weights, in place", timings.reloaded),
        ("the same weights", timings.same),
    ]
    lines = ["| a call with | seconds [95%] | CPU seconds of the child [95%] |", "|---|---|---|"]
    for name, taken in rows:
        clock, cpu = np.array(taken).T
        lines.append(f"| {name} | {mean(clock)} | {mean(cpu)} |")
    # The first of the two loads in place of each round stands against the start of that round.
    clocks = [np.array([clock for clock, _ in taken]) for taken in (timings.fresh, timings.reloaded[::2])]
    return [
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{options.rounds} rounds, {options.requests} requests of 8 tokens.",
        "",
        *lines,
        "",
        f"A new process takes {ratio(*clocks)} times as long as a load in place.",
        f"The waiting child holds {mean(np.array(timings.resident_mib))} MiB "
        f"and takes {mean(100 * np.array(timings.idle_share))}% of a core.",
    ]


if __name__ == "__main__":
    main()
