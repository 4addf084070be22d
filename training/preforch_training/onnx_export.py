"""The orchestrator as an ONNX graph: (B, L) ids and mask -> (B, K) weights as they are served, (B,) confidence."""

import warnings
from pathlib import Path

import torch
from preforch_models.bundle import OUTPUTS
from preforch_models.orchestrator_model import OrchestratorModel
from torch import nn

OPSET = 20


class _Served(nn.Module):
    """`forward` of the model is what training needs; clients want what is served."""

    def __init__(self, model: OrchestratorModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.serve(input_ids, attention_mask)


def export_onnx(model: OrchestratorModel, path: Path, *, max_tokens: int) -> None:
    """Write one self-contained ONNX file: inputs input_ids, attention_mask (int64), outputs OUTPUTS (float32)."""
    wrapper = _Served(model.eval())
    length = min(16, max_tokens)
    example = (torch.ones(2, length, dtype=torch.long), torch.ones(2, length, dtype=torch.long))
    batch, tokens = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("tokens", min=2, max=max_tokens)
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
