"""Text encoders: any Hugging Face encoder (BERT family, XLM-R, MiniLM) and the vector it gives a text."""

from typing import Literal

import torch
from transformers import PreTrainedModel

Pooling = Literal["mean", "cls"]


def pool(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Last hidden states to one vector per text: (B, L, D), (B, L) -> (B, D). Padding never counts."""
    if pooling == "cls":
        return hidden_BLD[:, 0]
    mask_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLD.dtype)
    return (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)


def encode(
    encoder: PreTrainedModel, input_ids_BL: torch.Tensor, mask_BL: torch.Tensor, pooling: Pooling
) -> torch.Tensor:
    """Token ids to pooled vectors, (B, L) -> (B, D)."""
    hidden_BLD = encoder(input_ids=input_ids_BL, attention_mask=mask_BL).last_hidden_state
    return pool(hidden_BLD, mask_BL, pooling)
