"""The reward model of the demo and of small data: a head on the frozen vectors of prompt and response.

r(x, y) = MLP([e(x), e(y), e(x) * e(y)]), e = mean-pooled encoder states. Larger reward models are plain Hugging Face
sequence classifiers with one label, trained by TRL; they need no definition here.
"""

from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class PairHeadConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is partly untyped
    """`encoder_path`: folder or hub id of the frozen encoder, whose vectors have `size` numbers."""

    model_type = "preforch-pair-head"

    def __init__(
        self,
        *,
        encoder_path: str = "",
        size: int = 384,
        hidden: int = 256,
        dropout: float = 0.1,
        pooling: str = "mean",
        max_tokens: int = 256,
        **kwargs: Any,
    ) -> None:
        self.encoder_path = encoder_path
        self.size = size
        self.hidden = hidden
        self.dropout = dropout
        self.pooling = pooling
        self.max_tokens = max_tokens
        super().__init__(**kwargs)


class PairHead(PreTrainedModel):  # type: ignore[misc]
    """(B, D) prompt vectors, (B, D) response vectors -> (B,) rewards."""

    config_class = PairHeadConfig
    config: PairHeadConfig

    def __init__(self, config: PairHeadConfig) -> None:
        super().__init__(config)
        self.norm = nn.LayerNorm(3 * config.size)
        self.layers = nn.Sequential(
            nn.Linear(3 * config.size, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, 1),
        )
        self.post_init()

    def forward(self, prompt_BD: torch.Tensor, response_BD: torch.Tensor) -> torch.Tensor:
        """Rewards, (B,)."""
        features_BF = torch.cat([prompt_BD, response_BD, prompt_BD * response_BD], dim=-1)
        reward_B1: torch.Tensor = self.layers(self.norm(features_BF))
        return reward_B1.squeeze(-1)
