"""Reward kind `classifier`: a Hugging Face sequence classifier as it is; and how any such classifier scores.

In:  prompts and responses. Out: one logit each, (N,), which does not depend on batch size, padding or order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from preforch_training.embeddings.batching import batch_tokens, batches_of, reading_device, token_limit
from preforch_training.records import Prompt
from preforch_training.reward.config import ClassifierReward, TextReading
from preforch_training.reward.texts import TokenRow, classifier_texts, token_rows
from preforch_training.tuning.resident import loaded


def score(
    config: ClassifierReward, folder: Path, cache: Path, prompts: Sequence[Prompt], responses: Sequence[str]
) -> np.ndarray:
    """The logit `label` of the classifier, or minus it, (N,)."""
    del folder, cache
    rewards_N = score_classifier(
        config.model,
        config,
        prompts,
        responses,
        revision=config.revision,
        label=config.label,
        batch_size=config.batch_size,
        segment_ids=True,
    )
    return -rewards_N if config.negate else rewards_N


def score_classifier(
    path: str,
    reading: TextReading,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    batch_size: int,
    segment_ids: bool,
    revision: str | None = None,
    label: int = 0,
) -> np.ndarray:
    """Logits of a classifier (folder or hub id), (N,), computed in 32 bits.

    `segment_ids`: it was trained with them. Raises ValueError for a label that it does not have.
    """
    tokenizer, model = loaded((path, revision), lambda: _load(path, revision))
    if label >= model.config.num_labels:
        raise ValueError(f"{path} has {model.config.num_labels} labels, no label {label}")
    max_tokens = token_limit(tokenizer, model.config, reading.max_tokens)
    rows = token_rows(
        tokenizer,
        classifier_texts(tokenizer, reading, prompts, responses),
        max_tokens=max_tokens,
        segment_ids=segment_ids and getattr(model.config, "type_vocab_size", 0) > 1,
    )
    _agree_on_padding(tokenizer, model, rows)
    # What `batch_size` texts of full length take is the most that memory must hold.
    tokens = min(batch_size * max_tokens, batch_tokens(model.device))
    rewards_N = np.zeros(len(rows))
    with torch.inference_mode():
        for numbers, batch in batches_of(tokenizer, rows, tokens=tokens, title="score"):
            rewards_N[numbers] = model(**batch.to(model.device)).logits[:, label].double().cpu().numpy()
    return rewards_N


def _load(path: str, revision: str | None) -> tuple[Any, PreTrainedModel]:
    """Tokenizer and model where it reads. Raises ValueError for a checkpoint without a head."""
    options = {} if revision is None else {"revision": revision}
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right", **options)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        path, dtype=torch.float32, output_loading_info=True, **options
    )
    if loading["missing_keys"]:
        raise ValueError(
            f"{path} is no classifier: it has no {sorted(loading['missing_keys'])}, "
            "which would start at random"
        )
    return tokenizer, model.eval().to(reading_device())


def _agree_on_padding(tokenizer: Any, model: PreTrainedModel, rows: Sequence[TokenRow]) -> None:
    """One pad token for tokenizer and model, which reads the last token that is not padding.

    A model without one reads the last token: then any token will do that no text ends with.
    """
    config = model.config.get_text_config()
    if config.pad_token_id is None:
        last = {int(row["input_ids"][-1]) for row in rows if len(row["input_ids"])}
        own = [] if tokenizer.pad_token_id is None else [tokenizer.pad_token_id]
        config.pad_token_id = next(i for i in (*own, *range(len(tokenizer))) if i not in last)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
