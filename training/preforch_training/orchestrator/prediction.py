"""What a trained orchestrator checkpoint serves: texts in, (N, K) weights and (N,) confidence out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from preforch_models.orchestrator_model import OrchestratorModel
from transformers import AutoTokenizer

from preforch_training.embeddings.batching import batch_tokens, padded_batches


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
    model = OrchestratorModel.from_pretrained(folder).eval()
    return serve(model, AutoTokenizer.from_pretrained(folder), texts)


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
    with torch.inference_mode():
        for rows, ids_BL, mask_BL in _batches(model, tokenizer, texts):
            vectors_ND[rows] = model.pooled(ids_BL, mask_BL).numpy()
    return vectors_ND


def _batches(
    model: OrchestratorModel, tokenizer: object, texts: Sequence[str]
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Rows, ids and mask."""
    tokens = batch_tokens(torch.device("cpu"))
    batches = padded_batches(
        tokenizer, texts, max_tokens=model.config.max_tokens, tokens=tokens, title="weights"
    )
    for rows, batch in batches:
        yield rows, batch["input_ids"], batch["attention_mask"]
