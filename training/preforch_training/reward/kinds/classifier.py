"""Reward kind `classifier`: a Hugging Face sequence classifier as it is; and how any such classifier scores.

In:  prompts and responses. Out: one logit each, (N,), which does not depend on batch size, padding or order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from preforch_training.embeddings.batching import batch_tokens, padded_batches, reading_device
from preforch_training.records import Prompt
from preforch_training.reward.config import ClassifierReward


def score(
    config: ClassifierReward, folder: Path, cache: Path, prompts: Sequence[Prompt], responses: Sequence[str]
) -> np.ndarray:
    """The logit `label` of the classifier, (N,)."""
    del folder, cache
    return score_classifier(
        config.model,
        prompts,
        responses,
        revision=config.revision,
        label=config.label,
        max_tokens=config.max_tokens,
        batch_size=config.batch_size,
    )


def score_classifier(
    path: str,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    max_tokens: int,
    batch_size: int,
    revision: str | None = None,
    label: int = 0,
) -> np.ndarray:
    """Logits of a classifier (folder or hub id), (N,); texts are cut at the beginning, where the oldest
    turns are."""
    options = {} if revision is None else {"revision": revision}
    tokenizer = AutoTokenizer.from_pretrained(path, truncation_side="left", **options)
    model = AutoModelForSequenceClassification.from_pretrained(path, **options).eval()
    model = model.to(reading_device())
    texts = [classifier_text(tokenizer, p, r) for p, r in zip(prompts, responses, strict=True)]
    batches = padded_batches(
        tokenizer,
        texts,
        max_tokens=max_tokens,
        # What `batch_size` texts of full length take is the most that memory must hold.
        tokens=min(batch_size * max_tokens, batch_tokens(model.device)),
        title="score",
        # The chat template has written the special tokens already.
        add_special_tokens=tokenizer.chat_template is None,
    )
    rewards_N = np.zeros(len(texts))
    with torch.inference_mode():
        for rows, batch in batches:
            rewards_N[rows] = model(**batch.to(model.device)).logits[:, label].double().cpu().numpy()
    return rewards_N


def classifier_text(tokenizer: Any, prompt: Prompt, response: str) -> str:
    """The text that a sequence classifier reads: its own chat template where it has one, plain turns where
    not."""
    messages = [message.model_dump() for message in prompt.messages]
    messages.append({"role": "assistant", "content": response})
    if tokenizer.chat_template is not None:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
