"""How likely a policy is to say given responses, as log-probabilities, nats.

In:  a policy folder, prompts and responses as token ids. Out: sum over a response's tokens, (N,) float64.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from preforch_training.distributed.shares import shared
from preforch_training.embeddings.batching import batch_tokens, length_batches, reading_device
from preforch_training.tuning.device_memory import free_memory

Ids = Sequence[int]


def log_probabilities(policy: Path, prompts: Sequence[Ids], responses: Sequence[Ids]) -> np.ndarray:
    """By all ranks of the run together; in 32 bits."""
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    return shared(partial(_log_probabilities, policy), prompts, responses, lengths=lengths)


def _log_probabilities(policy: Path, prompts: Sequence[Ids], responses: Sequence[Ids]) -> np.ndarray:
    device = reading_device()
    model = AutoModelForCausalLM.from_pretrained(policy, use_safetensors=True, dtype=torch.float32)
    model = model.eval().to(device)
    rows = [torch.tensor([*p, *r]) for p, r in zip(prompts, responses, strict=True)]
    found_N = np.zeros(len(rows))
    with (
        torch.inference_mode(),
        tqdm(total=len(rows), desc="log-probabilities", unit=" texts", leave=False) as bar,
    ):
        for numbers in length_batches([len(row) for row in rows], tokens=batch_tokens(device)):
            ids_BT = pad_sequence([rows[i] for i in numbers], batch_first=True).to(device)
            lengths = [len(rows[i]) for i in numbers]
            # Padding comes last, where no token that counts can see it.
            logits_BTV = model(ids_BT).logits[:, :-1].float()
            own_BT = torch.log_softmax(logits_BTV, dim=-1).gather(-1, ids_BT[:, 1:, None])[..., 0]
            for place, (i, length) in enumerate(zip(numbers, lengths, strict=True)):
                start = len(prompts[i]) - 1
                found_N[i] = own_BT[place, start : length - 1].double().sum().item()
            bar.update(len(numbers))
    del model
    free_memory()
    return found_N
