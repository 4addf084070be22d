"""Tiny random policies, and what tests of the sampler ask of them."""

from pathlib import Path

import tiny
import torch
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.context import ContextFormat
from preforch_models.conversation import Message
from preforch_models.manifest import Manifest, write_manifest, writing
from preforch_training.policy.base_model import add_context, new_model, train_tokenizer
from preforch_training.policy.checkpoint import save_policy
from preforch_training.policy.config import Scratch
from preforch_training.sampling.vllm import Generation, SampleRequest, VllmSampler

NAMES = ("helpful", "harmless", "humor")
WEIGHTS = {"helpful": 0.5, "harmless": 0.3, "humor": 0.2}
TOKENS = 24
# Longer than a block of the prefix cache (128 tokens), so that one left over from other weights shows.
TEXTS = tuple(" ".join(tiny.TEXTS[i:] + tiny.TEXTS[:i]) for i in range(len(tiny.TEXTS)))


def write_policy(target: Path, *, seed: int, tied: bool, size: Scratch = tiny.TINY) -> Path:
    """A random policy; all of one `tied` and `size` have one shape."""
    context_format = ContextFormat(objectives=NAMES, encoding="levels")
    tokenizer = train_tokenizer(tiny.TEXTS, vocabulary=tiny.TINY.vocabulary)
    model = new_model(len(tokenizer), size, max_model_len=tiny.MAX_MODEL_LEN, seed=seed)
    add_context(model, tokenizer, context_format, seed=seed)
    if not tied:
        model.config.tie_word_embeddings = False
        head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(seed))
        model.lm_head.weight = torch.nn.Parameter(0.3 * head)
    with writing(target) as folder:
        save_policy(
            folder,
            model,
            tokenizer,
            tiny.policy_info("tiny"),
            objectives=context_format.objectives,
            conditioning=ContextConditioning(encoding=context_format.encoding),
            max_model_len=tiny.MAX_MODEL_LEN,
        )
        write_manifest(folder, Manifest(kind="policy"))
    return target


def request(*, n: int = 2, seed: int = 1, text: str = "Tell me a joke") -> SampleRequest:
    return SampleRequest(messages=(Message(role="user", content=text),), weights=WEIGHTS, n=n, seed=seed)


def draw(sampler: VllmSampler, policy: Path) -> list[list[Generation]]:
    """What a round draws: several responses to each prompt, at a temperature."""
    requests = [request(seed=seed, n=3, text=text) for seed, text in enumerate(TEXTS)]
    return sampler.sample(policy, requests, temperature=0.7, top_p=1.0, max_tokens=TOKENS)


def sample_for_long(sampler: VllmSampler, policy: Path, *, requests: int = 1) -> None:
    """A call of many seconds."""
    sampler.sample(policy, [request(n=2000)] * requests, temperature=1.0, top_p=1.0, max_tokens=200)
