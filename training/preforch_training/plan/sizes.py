"""How large a model is, by its config.json alone: the architecture on the meta device, without a weight.

In:  a folder, a hub id or `package:NAME`, and what the model is used for.
Out: `ModelSize`; None where no config.json is to be had.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from preforch_training.embeddings.vectors import encoder_path

Use = Literal["policy", "reward", "encoder"]
_CLASSES = {
    "policy": AutoModelForCausalLM,
    "reward": AutoModelForSequenceClassification,
    "encoder": AutoModel,
}


@dataclass(frozen=True)
class ModelSize:
    """Numbers of one architecture.

    `multiplied`: parameters that every token is multiplied with, all but the input embeddings; tied ones are
    the head and count. `linear`: width in and out of the linear layers but the head, summed by name.
    `cached`: numbers that the key-value cache holds for a token. `width`: bytes of a stored parameter.
    """

    parameters: int
    multiplied: int
    linear: Mapping[str, int]
    layers: int
    hidden: int
    vocabulary: int
    cached: int
    width: int

    def lora(self, rank: int, targets: Literal["all-linear"] | tuple[str, ...] = "all-linear") -> int:
        """Parameters of LoRA on all linear layers but the head, or on those of these names."""
        named = self.linear if targets == "all-linear" else targets
        return rank * sum(self.linear.get(name, 0) for name in named)

    @property
    def stored(self) -> int:
        """Bytes of the checkpoint."""
        return self.parameters * self.width


def find_config(model: str, *, revision: str, folders: Mapping[str, Path], reachable: bool) -> Path | None:
    """The folder with a model's config.json: named by the user, local, in the hub's cache, or fetched now.

    Raises ValueError for a folder without one.
    """
    if model in folders or Path(model).is_dir() or model.startswith("package:"):
        folder = folders[model] if model in folders else Path(encoder_path(model))
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder}: no config.json, which says how large {model} is")
        return folder
    found = try_to_load_from_cache(model, "config.json", revision=revision)
    if isinstance(found, str):
        return Path(found).parent
    if not reachable:
        return None
    try:
        return Path(hf_hub_download(model, "config.json", revision=revision)).parent
    except (OSError, HfHubHTTPError):
        # No such repository, or one whose licence has not been accepted.
        return None


def measure(folder: Path, use: Use) -> ModelSize:
    """The size of a model. Raises ValueError for an architecture that transformers does not know."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = _CLASSES[use].from_config(config)
    return size_of(model)


def size_of(model: PreTrainedModel) -> ModelSize:
    """The size of a model on any device."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    embeddings = model.get_input_embeddings().weight
    tied = head is not None and head.weight is embeddings
    parameters = sum(weight.numel() for weight in model.parameters())
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelSize(
        parameters=parameters,
        multiplied=parameters - (0 if tied else embeddings.numel()),
        linear=_linear(model, head),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        cached=2
        * config.num_hidden_layers
        * (getattr(config, "num_key_value_heads", None) or heads)
        * head_width,
        width=_width(config),
    )


def _linear(model: PreTrainedModel, head: nn.Module | None) -> dict[str, int]:
    """Width in and out of linear layers, GPT-2's own kind too, by the last part of their names."""
    found: Counter[str] = Counter()
    for name, layer in model.named_modules():
        if layer is not head and isinstance(layer, nn.Linear | Conv1D):
            outwards, inwards = layer.weight.shape
            found[name.rpartition(".")[2]] += outwards + inwards
    return dict(found)


def _width(config: Any) -> int:
    """Bytes of a number by the checkpoint's dtype; 4 where it does not say."""
    return torch.empty(0, dtype=config.dtype or torch.float32).element_size()
