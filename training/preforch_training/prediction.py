"""Weights from a trained orchestrator checkpoint: texts in, (N, K) out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from preforch_models.orchestrator_model import OrchestratorModel
from transformers import AutoTokenizer

_BATCH = 64


def predict_weights(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Recommended weights of texts (`Prompt.text`), (N, K), objectives in the run's order."""
    model = OrchestratorModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return weights_of(model, tokenizer, texts)


def weights_of(model: OrchestratorModel, tokenizer: object, texts: Sequence[str]) -> np.ndarray:
    """Weights by a loaded model; texts go in batches of similar length."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    weights_NK = np.zeros((len(texts), len(model.config.objectives)))
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            batch = tokenizer(  # type: ignore[operator]  # a transformers tokenizer
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=model.config.max_tokens,
                return_tensors="pt",
            )
            log_BK = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            weights_NK[rows] = log_BK.double().exp().numpy()
    return weights_NK
