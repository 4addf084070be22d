"""Configs of real and of countable architectures, as `config.json` alone."""

from pathlib import Path

from transformers import (
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    XLMRobertaConfig,
)

LLAMA_2_7B = LlamaConfig(
    vocab_size=32_000,
    hidden_size=4096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
    dtype="float16",
)
QWEN_25_7B = Qwen2Config(
    vocab_size=152_064,
    hidden_size=3584,
    intermediate_size=18_944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    tie_word_embeddings=False,
    dtype="bfloat16",
)
QWEN_25_05B = Qwen2Config(
    vocab_size=151_936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    tie_word_embeddings=True,
    dtype="bfloat16",
)
XLM_R_BASE = XLMRobertaConfig(
    vocab_size=250_002,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=514,
    type_vocab_size=1,
    pad_token_id=1,
)
GPT2_LARGE = GPT2Config(n_embd=1280, n_layer=36, n_head=20, num_labels=1)
DISTILBERT = DistilBertConfig(num_labels=2)
COUNTABLE = LlamaConfig(
    vocab_size=100,
    hidden_size=8,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    tie_word_embeddings=False,
    dtype="float16",
)
"""100 x 8 embeddings, as large a head; a layer has 64 + 32 + 32 + 64 for attention, 3 x 128 behind it, 2 x 8
norms, 592 in all; the last norm 8."""


def write_config(folder: Path, config: PretrainedConfig, architecture: str = "") -> Path:
    """A folder with a config.json and nothing else."""
    config.architectures = [architecture] if architecture else None
    config.save_pretrained(folder)
    return folder
