"""How likely policies are to say given responses, and how far they are from each other.

In:  policies, prompts and responses as token ids, which every policy of a run shares.
Out: by response log-probabilities, or KL divergences along it; nats, (N,) float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM

from preforch_training.distributed.shares import shared
from preforch_training.embeddings.batching import batch_tokens, length_batches, reading_device

Ids = Sequence[int]


@dataclass(frozen=True)
class Reader:
    """A policy that reads: its folder, and a LoRA adapter to put on it."""

    policy: Path
    adapter: Path | None = None


def log_probabilities(policy: Path, prompts: Sequence[Ids], responses: Sequence[Ids]) -> np.ndarray:
    """log p(y | x), by all ranks of the run together; in 32 bits."""
    lengths = _lengths(prompts, responses)
    return shared(partial(_log_probabilities, Reader(policy)), prompts, responses, lengths=lengths)


def divergences(
    policy: Reader,
    reference: Reader,
    prompts: Sequence[Ids],
    reference_prompts: Sequence[Ids],
    responses: Sequence[Ids],
) -> np.ndarray:
    """Sum over the tokens of a response of KL(policy || reference), that of all next tokens where it stands;
    at temperature 1, of the tokens that both know, by all ranks together. Its mean over responses that the
    policy draws at temperature 1 is the KL of the whole responses (chain rule). Each reads the prompt as it
    is written for it. A response counts up to the first token that one of them does not know: where a policy
    says a token of its own context.
    """
    lengths = _lengths(prompts, responses)
    return shared(
        partial(_divergences, policy, reference), prompts, reference_prompts, responses, lengths=lengths
    )


def _lengths(prompts: Sequence[Ids], responses: Sequence[Ids]) -> list[int]:
    return [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]


def _log_probabilities(policy: Reader, prompts: Sequence[Ids], responses: Sequence[Ids]) -> np.ndarray:
    read = _reading(policy)

    def of_batch(numbers: Sequence[int]) -> list[float]:
        said = [torch.tensor(responses[i]) for i in numbers]
        found = read([prompts[i] for i in numbers], [responses[i] for i in numbers])
        return [
            torch.log_softmax(logits_RV, dim=-1)
            .gather(-1, ids_R.to(logits_RV.device)[:, None])
            .double()
            .sum()
            .item()
            for logits_RV, ids_R in zip(found, said, strict=True)
        ]

    return _by_batches(of_batch, _lengths(prompts, responses))


def _divergences(
    policy: Reader,
    reference: Reader,
    prompts: Sequence[Ids],
    reference_prompts: Sequence[Ids],
    responses: Sequence[Ids],
) -> np.ndarray:
    read, read_reference = _reading(policy), _reading(reference)
    sizes = [
        AutoConfig.from_pretrained(one.policy).get_text_config().vocab_size for one in (policy, reference)
    ]
    known = [list(takewhile(lambda token: token < min(sizes), response)) for response in responses]

    def of_batch(numbers: Sequence[int]) -> list[float]:
        said = [known[i] for i in numbers]
        ours = read([prompts[i] for i in numbers], said)
        theirs = read_reference([reference_prompts[i] for i in numbers], said)
        return [_divergence(own_RV, other_RV) for own_RV, other_RV in zip(ours, theirs, strict=True)]

    return _by_batches(of_batch, _lengths(prompts, responses))


def _divergence(own_RV: torch.Tensor, other_RV: torch.Tensor) -> float:
    """KL of next tokens, from logits, summed. A policy may have tokens of a context after those of the run's
    base, which no other one knows."""
    known = min(own_RV.shape[-1], other_RV.shape[-1])
    own_RV, other_RV = (torch.log_softmax(logits_RV[:, :known], dim=-1) for logits_RV in (own_RV, other_RV))
    return float((own_RV.exp() * (own_RV - other_RV)).double().sum().item())


_Reading = Callable[[Sequence[Ids], Sequence[Ids]], list[torch.Tensor]]
"""(prompts, responses) of a batch -> by response logits of all next tokens, (R, V), in 32 bits."""


def _reading(reader: Reader) -> _Reading:
    device = reading_device()
    model = AutoModelForCausalLM.from_pretrained(reader.policy, use_safetensors=True, dtype=torch.float32)
    if reader.adapter is not None:
        model = PeftModel.from_pretrained(model, reader.adapter)
    model = model.eval().to(device)

    def read(prompts: Sequence[Ids], responses: Sequence[Ids]) -> list[torch.Tensor]:
        rows = [torch.tensor([*p, *r]) for p, r in zip(prompts, responses, strict=True)]
        # Padding comes last, where no token that counts can see it.
        logits_BTV = model(pad_sequence(rows, batch_first=True).to(device)).logits
        return [
            logits_TV[len(p) - 1 : len(p) + len(r) - 1].float()
            for logits_TV, p, r in zip(logits_BTV, prompts, responses, strict=True)
        ]

    return read


def _by_batches(of_batch: Callable[[Sequence[int]], list[float]], lengths: Sequence[int]) -> np.ndarray:
    """What `of_batch` finds, of rows of like length at a time."""
    found_N = np.zeros(len(lengths))
    with (
        torch.inference_mode(),
        tqdm(total=len(lengths), desc="log-probabilities", unit=" texts", leave=False) as bar,
    ):
        for numbers in length_batches(lengths, tokens=batch_tokens(reading_device())):
            found_N[numbers] = of_batch(numbers)
            bar.update(len(numbers))
    return found_N
