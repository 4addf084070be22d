"""Drawing responses: vLLM as `VllmSampler` runs it against transformers' `generate`, by size of the policy.

In:  nothing; random policies of three sizes are made. Out: a Markdown table on stdout, tokens per CPU second.

    OMP_NUM_THREADS=1 python benchmarks/generate.py --rounds 3

Both draw one response to each of 100 prompts at temperature 0.7, at most 64 tokens, in one batch. CPU seconds
are those of the process that draws; starting it and loading the model are left out.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from preforch_models.conversation import Message
from preforch_models.weights import round_weights, uniform
from preforch_training.policy.config import Scratch
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.sampling.vllm import SampleRequest, VllmSampler
from reload import CONTEXT, cpu_seconds, made_texts, write_policy
from rounds import mean, ratio
from transformers import AutoModelForCausalLM

SIZES = {
    "1 M": Scratch(),
    "10 M": Scratch(width=384, layers=5, heads=6, inner=1152),
    "50 M": Scratch(width=768, layers=7, heads=12, inner=2304),
}
TEMPERATURE = 0.7
WEIGHTS = round_weights(uniform(CONTEXT.objectives), CONTEXT.units)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="vLLM against transformers' generate.")
    parser.add_argument("--rounds", type=int, default=3, help="at least 2")
    parser.add_argument("--batch", type=int, default=100, help="responses that are drawn at a time")
    parser.add_argument("--tokens", type=int, default=64, help="of a response, at the most")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    options = parser.parse_args(argv)
    if options.rounds < 2:
        parser.error(f"--rounds is {options.rounds}; an interval needs at least 2")
    lines = ["| parameters | vLLM [95%] | generate [95%] | vLLM / generate [95%] |", "|---|---|---|---|"]
    for name in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            policy = write_policy(Path(folder) / "policy", seed=1, size=SIZES[name])
            parameters, ours, theirs = measure(policy, options)
        shown = [*map(mean, (ours, theirs)), ratio(ours, theirs)]
        lines.append(f"| {parameters / 1e6:.1f} M | {' | '.join(shown)} |")
    print(
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{options.rounds} rounds, batch {options.batch}, {options.tokens} tokens. Tokens per CPU second:\n"
    )
    print("\n".join(lines))


def measure(policy: Path, options: argparse.Namespace) -> tuple[int, np.ndarray, np.ndarray]:
    """Parameters, and tokens per CPU second of each round by both, in turns."""
    messages = [(Message(role="user", content=text),) for text in made_texts()[: options.batch]]
    model: Any = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    model.eval()
    rates: tuple[list[float], list[float]] = ([], [])
    with VllmSampler() as sampler:
        ways: tuple[Callable[[int], int], ...] = (
            lambda seed: by_vllm(sampler, policy, messages, seed, options.tokens),
            lambda seed: by_generate(model, policy, messages, seed, options.tokens),
        )
        for way in ways:
            way(0)  # starts vLLM, and whatever else is done once
        assert sampler.pid is not None
        processes = (psutil.Process(sampler.pid), psutil.Process())
        for seed in range(1, options.rounds + 1):
            for way, process, found in zip(ways, processes, rates, strict=True):
                found.append(rate(way, process, seed))
    ours, theirs = map(np.array, rates)
    return model.num_parameters(), ours, theirs


def rate(way: Callable[[int], int], process: psutil.Process, seed: int) -> float:
    """Tokens per CPU second of the process that draws."""
    before = cpu_seconds(process)
    tokens = way(seed)
    return tokens / (cpu_seconds(process) - before)


def by_vllm(
    sampler: VllmSampler, policy: Path, messages: Sequence[tuple[Message, ...]], seed: int, tokens: int
) -> int:
    """Number of tokens drawn."""
    asked = [
        SampleRequest(messages=each, weights=WEIGHTS, n=1, seed=1000 * seed + i)
        for i, each in enumerate(messages)
    ]
    found = sampler.sample(policy, asked, temperature=TEMPERATURE, top_p=1.0, max_tokens=tokens)
    return sum(len(answer.token_ids) + answer.finished for (answer,) in found)


def by_generate(
    model: Any, policy: Path, messages: Sequence[tuple[Message, ...]], seed: int, tokens: int
) -> int:
    """The same: all prompts in one batch, padded on the left."""
    reader = PolicyTokenizer(policy)
    pad = reader.end_id
    prompts = [reader.prompt_ids(each, WEIGHTS) for each in messages]
    longest = max(map(len, prompts))
    ids_BT = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts])
    mask_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
    torch.manual_seed(seed)
    with torch.inference_mode():
        found_BT = model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=1.0,
            top_k=0,
            max_new_tokens=tokens,
            pad_token_id=pad,
        )
    # Padding after the end is no token that was wanted; the first end token is.
    ended_BT = found_BT[:, longest:] == reader.end_id
    return int((ended_BT.cumsum(dim=1) - ended_BT.long() < 1).sum())


if __name__ == "__main__":
    main()
