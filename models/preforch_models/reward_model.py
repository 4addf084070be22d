"""The reward model of the demo and of small data: a head on the frozen vectors of prompt and response.

e = pooled encoder states. With `hidden` units r(x, y) = MLP([e(x), e(y), e(x) * e(y)]); with none it is
linear in [e(y), e(x) * e(y)], since what is linear in e(x) cancels between two responses. Larger reward
models are plain Hugging Face sequence classifiers with one label, trained by TRL; they need no definition
here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from preforch_models.orchestrator_options import LAST


class PairHeadConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is partly untyped
    """`encoder_path`: folder or hub id of the encoder; its vectors, `layers` joined, are `size` long."""

    model_type = "preforch-pair-head"

    def __init__(
        self,
        *,
        encoder_path: str = "",
        size: int = 384,
        hidden: int = 256,
        dropout: float = 0.1,
        pooling: str = "mean",
        layers: Sequence[int] = LAST,
        max_tokens: int = 256,
        **kwargs: Any,
    ) -> None:
        self.encoder_path = encoder_path
        self.size = size
        self.hidden = hidden
        self.dropout = dropout
        self.pooling = pooling
        self.layers = list(layers)
        self.max_tokens = max_tokens
        super().__init__(**kwargs)


class PairHead(PreTrainedModel):  # type: ignore[misc]  # transformers is partly untyped
    """(B, D) prompt vectors, (B, D) response vectors -> (B,) rewards."""

    config_class = PairHeadConfig
    config: PairHeadConfig

    def __init__(self, config: PairHeadConfig) -> None:
        super().__init__(config)
        if config.hidden:
            self.norm: nn.Module = nn.LayerNorm(3 * config.size)
            self.layers: nn.Module = nn.Sequential(
                nn.Linear(3 * config.size, config.hidden),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.hidden, 1),
            )
        else:
            self.norm, self.layers = nn.Identity(), nn.Linear(2 * config.size, 1)
        self.post_init()

    def features(self, prompt_BD: torch.Tensor, response_BD: torch.Tensor) -> torch.Tensor:
        """What the head reads, (B, 3 D), or (B, 2 D) where it is linear."""
        parts = [response_BD, prompt_BD * response_BD]
        return torch.cat([prompt_BD, *parts] if self.config.hidden else parts, dim=-1)

    def forward(self, prompt_BD: torch.Tensor, response_BD: torch.Tensor) -> torch.Tensor:
        """Rewards, (B,)."""
        reward_B1: torch.Tensor = self.layers(self.norm(self.features(prompt_BD, response_BD)))
        return reward_B1.squeeze(-1)
