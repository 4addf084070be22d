"""What a trained orchestrator checkpoint serves: texts in, (N, K) weights and (N,) confidence out.

On a GPU where there is one, in batches bounded by tokens. A saved model is read by all ranks of the run,
each for its share of the texts; a loaded one is this process's alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from preforch_models.orchestrator_model import OrchestratorModel
from transformers import AutoTokenizer

from preforch_training.distributed.shares import shared
from preforch_training.embeddings.batching import batch_tokens, padded_batches, reading_device


@dataclass(frozen=True)
class Served:
    """Weights after shrinkage, (N, K), and confidence, (N,), float64."""

    weights_NK: np.ndarray
    confidence_N: np.ndarray


def predict_weights(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Recommended weights of texts (`Prompt.text`), (N, K), objectives in the run's order, as they are
    served."""
    return predict(folder, texts).weights_NK


def predict(folder: Path, texts: Sequence[str]) -> Served:
    """`serve` by a saved model."""
    vectors_ND = shared(partial(_saved_vectors, folder), texts, lengths=[len(text) for text in texts])
    return serve_vectors(OrchestratorModel.from_pretrained(folder).eval(), vectors_ND)


def serve(model: OrchestratorModel, tokenizer: object, texts: Sequence[str]) -> Served:
    """Weights and confidence by a loaded model."""
    return serve_vectors(model, vectors_of(model, tokenizer, texts))


def serve_vectors(model: OrchestratorModel, vectors_ND: np.ndarray) -> Served:
    """The same from the pooled vectors of texts."""
    with torch.inference_mode():
        weights_NK, confidence_N = model.serve_pooled(torch.from_numpy(vectors_ND).float())
    return Served(weights_NK.double().numpy(), confidence_N.double().numpy())


def vectors_of(model: OrchestratorModel, tokenizer: object, texts: Sequence[str]) -> np.ndarray:
    """The pooled vectors that the head of a loaded model reads, (N, D) float32."""
    vectors_ND = np.zeros((len(texts), model.head.in_features), dtype=np.float32)
    with torch.inference_mode(), _on_device(model) as device:
        batches = padded_batches(
            tokenizer,
            texts,
            max_tokens=model.config.max_tokens,
            tokens=batch_tokens(device),
            title="weights",
        )
        for rows, batch in batches:
            batch = batch.to(device)
            vectors_ND[rows] = model.pooled(batch["input_ids"], batch["attention_mask"]).cpu().numpy()
    return vectors_ND


def _saved_vectors(folder: Path, texts: Sequence[str]) -> np.ndarray:
    model = OrchestratorModel.from_pretrained(folder).eval()
    return vectors_of(model, AutoTokenizer.from_pretrained(folder), texts)


@contextmanager
def _on_device(model: OrchestratorModel) -> Iterator[torch.device]:
    """Have the model where it reads fastest, and back afterwards: a GPU is for others as well."""
    device = reading_device()
    model.to(device)
    try:
        yield device
    finally:
        model.to("cpu")
