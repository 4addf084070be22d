"""Models of real size with random weights, for a machine that has neither a hub nor time to download.

In:  a folder, `tiny` or not. Out: `policy`, `reward` and `encoder` in it: the shapes of Qwen2.5-1.5B and of
     Qwen2.5-0.5B, and BERT's at the size of xlm-roberta-base, with a tokenizer learned from the demo world;
     on stdout the number of parameters of each, as JSON.

    python benchmarks/gpu_smoke_models.py FOLDER [--tiny]
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from preforch_training.demo.assistant.world import ASSISTANT
from preforch_training.policy.base_model import train_tokenizer
from transformers import BertConfig, BertModel, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM


def write_models(folder: Path, *, tiny: bool) -> dict[str, int]:
    """Write them; the number of parameters of each."""
    generated = ASSISTANT.generate(seed=0, train_prompts=200, validation_prompts=10, test_prompts=10)
    texts = [text for pair in generated.pairs for text in (pair.chosen, pair.rejected)]
    tokenizer = train_tokenizer([*(prompt.text for prompt in generated.prompts), *texts], vocabulary=1400)
    counts = {}
    for name, build in builders(len(tokenizer), tokenizer.pad_token_id, tiny=tiny).items():
        with torch.random.fork_rng(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            torch.manual_seed(0)
            model = build()
        counts[name] = model.num_parameters()
        dtype = torch.float32 if name == "encoder" else torch.bfloat16
        model.to(dtype).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return counts


def builders(tokens: int, pad: int, *, tiny: bool) -> dict[str, Callable[[], PreTrainedModel]]:
    """How each model is made; large ones have the original's vocabulary, most of whose rows nothing uses."""
    policy = _qwen(
        tokens if tiny else 151_936, pad, *((64, 2, 2, 1, 96) if tiny else (1536, 28, 12, 2, 8960))
    )
    reward = _qwen(tokens if tiny else 151_936, pad, *((64, 2, 2, 1, 96) if tiny else (896, 24, 14, 2, 4864)))
    width, layers, heads, inner = (32, 2, 2, 48) if tiny else (768, 12, 12, 3072)
    encoder = BertConfig(
        vocab_size=tokens if tiny else 250_002,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        pad_token_id=pad,
    )
    return {
        "policy": lambda: Qwen2ForCausalLM(policy),
        "reward": lambda: Qwen2ForCausalLM(reward),
        "encoder": lambda: BertModel(encoder),
    }


def _qwen(
    vocabulary: int, pad: int, width: int, layers: int, heads: int, pairs: int, inner: int
) -> Qwen2Config:
    """`pairs`: heads of keys and values."""
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        intermediate_size=inner,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=pad,
    )


def main() -> None:
    """Write the models that the arguments ask for."""
    parser = argparse.ArgumentParser(description="Models of real size with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    print(json.dumps(write_models(options.folder, tiny=options.tiny)))


if __name__ == "__main__":
    main()
