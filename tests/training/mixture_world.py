"""Members of mixtures: random ones with attention, and tabular ones, whose next token has a closed form."""

from pathlib import Path

import numpy as np
import tiny
import torch
from preforch_training.policy.tokenizer import load_tokenizer
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

NAMES = ("helpful", "harmless", "humor")


def write_members(folder: Path, models: dict[str, PreTrainedModel]) -> dict[str, Path]:
    """A policy of each model; all have the tokenizer of tiny policies."""
    found = {}
    for name, model in models.items():
        found[name] = tiny.write_fixed_policy(folder / f"best-{name}" / "round-0", NAMES, name=f"best-{name}")
        model.save_pretrained(found[name])
    return found


def vocabulary(folder: Path) -> int:
    """Tokens of the tokenizer of tiny policies."""
    return len(load_tokenizer(tiny.write_fixed_policy(folder, NAMES)))


def new_model(vocabulary: int, width: int, *, layers: int = 2) -> Qwen2ForCausalLM:
    """A model whose head is its own."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=1,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=tiny.MAX_MODEL_LEN,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    return Qwen2ForCausalLM(config)


def random_models(vocabulary: int) -> dict[str, PreTrainedModel]:
    """One for each objective, whose answers depend on every token before."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return {name: new_model(vocabulary, 32) for name in NAMES}


def tabular_model(logits_VV: np.ndarray) -> PreTrainedModel:
    """The logits of the next token are the row of the last one: its layers pass on one-hot embeddings."""
    size = len(logits_VV)
    model = new_model(size, size + size % 2, layers=1)
    model.requires_grad_(requires_grad=False)
    layer, width = model.model.layers[0], model.config.hidden_size
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()
    model.model.embed_tokens.weight.copy_(torch.eye(size, width))
    # The last norm divides by the root mean square, which is that of a one and zeros.
    model.model.norm.weight.fill_((1 / width + model.config.rms_norm_eps) ** 0.5)
    model.lm_head.weight.zero_()
    model.lm_head.weight[:, :size] = torch.tensor(logits_VV.T)
    return model
