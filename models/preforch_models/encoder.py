"""Text encoders: any Hugging Face encoder (BERT family, XLM-R, MiniLM) and the vector it gives a text."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from preforch_models.orchestrator_options import LAST, Layers, Pooling


def pool(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Last hidden states to one vector per text: (B, L, D), (B, L) -> (B, D). Padding never counts."""
    if pooling == "cls":
        return hidden_BLD[:, 0]
    mask_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLD.dtype)
    return (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)


def encode(
    encoder: PreTrainedModel,
    input_ids_BL: torch.Tensor,
    mask_BL: torch.Tensor,
    pooling: Pooling,
    layers: Layers = LAST,
) -> torch.Tensor:
    """Token ids to pooled vectors, (B, L) -> (B, D), D = number of layers * hidden size."""
    if layers == LAST:
        return pool(
            encoder(input_ids=input_ids_BL, attention_mask=mask_BL).last_hidden_state, mask_BL, pooling
        )
    states = encoder(input_ids=input_ids_BL, attention_mask=mask_BL, output_hidden_states=True).hidden_states
    return torch.cat([pool(states[layer], mask_BL, pooling) for layer in layers], dim=-1)


def check_layers(layers: Sequence[int], count: int) -> Layers:
    """Layers of an encoder with `count` transformer layers, as a tuple.

    Raises ValueError naming a wrong one.
    """
    for layer in layers:
        if not -count - 1 <= layer <= count:
            raise ValueError(
                f"layer {layer} does not exist; the encoder has 0 to {count}, or -1 to {-count - 1}"
            )
    if not layers or len({layer % (count + 1) for layer in layers}) != len(layers):
        raise ValueError(f"layers must be one or more different ones of 0 to {count}, got {list(layers)}")
    return tuple(layers)
