"""The orchestrator f(x): encoder, linear head, softmax (paper, section 3.1). Input text: `conversation_text`.

A Hugging Face model: `OrchestratorModel.from_pretrained(folder)`, `save_pretrained`.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from preforch_models.encoder import Pooling, encode


class OrchestratorConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is partly untyped
    """Encoder configuration (as a dict with `model_type`), objective names in order, pooling, tokens read."""

    model_type = "preforch-orchestrator"

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | None = None,
        objectives: list[str] | None = None,
        pooling: Pooling = "mean",
        max_tokens: int = 256,
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder or {}
        self.objectives = objectives or []
        self.pooling = pooling
        self.max_tokens = max_tokens
        super().__init__(**kwargs)


class OrchestratorModel(PreTrainedModel):  # type: ignore[misc]
    """`forward` gives log weights, (B, L), (B, L) -> (B, K): training needs logarithms, and exp gives the weights."""

    config_class = OrchestratorConfig
    config: OrchestratorConfig

    def __init__(self, config: OrchestratorConfig) -> None:
        super().__init__(config)
        settings = dict(config.encoder)
        encoder_config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        # Eager attention exports to ONNX exactly.
        self.encoder = AutoModel.from_config(encoder_config, attn_implementation="eager")
        self.head = nn.Linear(encoder_config.hidden_size, len(config.objectives))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # A zero head starts at uniform weights.
        if module is self.head:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Log weights, (B, K)."""
        pooled_BD = encode(self.encoder, input_ids, attention_mask, self.config.pooling)
        return torch.log_softmax(self.head(pooled_BD), dim=-1)


def new_orchestrator(
    encoder_path: str, *, objectives: list[str], pooling: Pooling, max_tokens: int, revision: str = "main"
) -> OrchestratorModel:
    """An orchestrator on a pretrained encoder (folder or hub id), head at zero."""
    encoder = AutoModel.from_pretrained(encoder_path, revision=revision, attn_implementation="eager")
    config = OrchestratorConfig(
        encoder=encoder.config.to_diff_dict() | {"model_type": encoder.config.model_type},
        objectives=objectives,
        pooling=pooling,
        max_tokens=max_tokens,
    )
    model = OrchestratorModel(config)
    model.encoder.load_state_dict(encoder.state_dict())
    return model
