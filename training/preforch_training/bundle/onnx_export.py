"""The orchestrator as an ONNX graph: (B, L) ids and mask -> (B, K) weights as they are served, (B,)
confidence.

`export_onnx` writes it, `serve_onnx` asks it as the service does.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from preforch_models.bundle import OUTPUTS
from preforch_models.orchestrator_model import OrchestratorModel
from torch import nn

from preforch_training.embeddings.batching import length_batches
from preforch_training.orchestrator.prediction import Served

OPSET = 20


class _Served(nn.Module):
    """`forward` of the model is what training needs; clients want what is served."""

    def __init__(self, model: OrchestratorModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.serve(input_ids, attention_mask)


def export_onnx(model: OrchestratorModel, path: Path, *, max_tokens: int) -> None:
    """Write one self-contained ONNX file: inputs input_ids, attention_mask (int64), outputs OUTPUTS
    (float32)."""
    wrapper = _Served(model.eval())
    length = min(16, max_tokens)
    example = (torch.ones(2, length, dtype=torch.long), torch.ones(2, length, dtype=torch.long))
    batch, tokens = (
        torch.export.Dim("batch", min=1, max=4096),
        torch.export.Dim("tokens", min=2, max=max_tokens),
    )
    shapes = {"input_ids": {0: batch, 1: tokens}, "attention_mask": {0: batch, 1: tokens}}
    with warnings.catch_warnings():
        # The exporter warns about its own internals, never about this model.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapper,
            example,
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=list(OUTPUTS),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def serve_onnx(
    path: Path, tokenizer: Any, texts: Sequence[str], *, max_tokens: int, tokens: int = 1
) -> Served:
    """What ONNX Runtime on the CPU gives texts, in batches alike in length of at most `tokens` padded tokens.

    With 1 every text is alone.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ids = tokenizer(list(texts), truncation=True, max_length=max_tokens, return_attention_mask=False)[
        "input_ids"
    ]
    found: dict[int, list[Any]] = {}
    for rows in length_batches([len(row) for row in ids], tokens=tokens):
        batch = tokenizer.pad(
            {"input_ids": [ids[row] for row in rows]}, return_attention_mask=True, return_tensors="np"
        )
        feed = {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
        weights_BK, confidence_B = session.run(list(OUTPUTS), feed)
        found |= {row: answer for row, *answer in zip(rows, weights_BK, confidence_B, strict=True)}
    answers = [found[row] for row in range(len(texts))]
    weights_NK, confidence_N = ([answer[k] for answer in answers] for k in (0, 1))
    return Served(np.array(weights_NK, dtype=np.float64), np.array(confidence_N, dtype=np.float64))
