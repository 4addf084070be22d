"""Two tiny random policies with the formats that most open models use, for the attacks on control tokens.

In:  an empty folder and a context format.
Out: policy folders that vLLM serves. Their templates print everything that a request can bring along: system
     prompts, names, tool definitions, tool calls, tool results, documents, reasoning.
"""

from pathlib import Path
from typing import Literal

import tiny
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.context import ContextFormat, chat_template
from preforch_models.manifest import Manifest, write_manifest, writing
from preforch_training.policy.base_model import add_context, new_model, train_tokenizer
from preforch_training.policy.checkpoint import save_policy
from preforch_training.policy.config import Scratch
from tokenizers import AddedToken, normalizers

Style = Literal["qwen_style", "llama_style"]
END_OF_TURN: dict[Style, str] = {"qwen_style": "<|im_end|>", "llama_style": "<|eot_id|>"}
LLAMA_TOKENS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|finetune_right_pad_id|>"),
    *(f"<|reserved_special_token_{i}|>" for i in range(200)),
)
NORMALIZERS = {"qwen_style": normalizers.NFC, "llama_style": normalizers.NFKC}
MAX_MODEL_LEN = 8192


def style_template(style: Style, context_format: ContextFormat) -> str:
    """The style's turns with the context."""
    turns = (Path(__file__).parent / "templates" / f"{style}.jinja").read_text(encoding="utf-8")
    return chat_template(context_format, turns)


def write_style(target: Path, style: Style, context_format: ContextFormat) -> Path:
    """A random policy. Before the project adds its tokens, Llama's are matched in normalised text (NFKC)."""
    tokenizer = train_tokenizer(tiny.TEXTS, vocabulary=300)
    tokenizer.backend_tokenizer.normalizer = NORMALIZERS[style]()
    if style == "llama_style":
        tokenizer.add_tokens(
            [AddedToken(t, special=True, normalized=True) for t in LLAMA_TOKENS], special_tokens=True
        )
    else:
        tokenizer.add_tokens(["<tool_call>", "</tool_call>", "<think>", "</think>"])
    # vLLM on CPU wants heads of 32 or more.
    size = Scratch(vocabulary=300, width=32, layers=1, heads=1, inner=32)
    model = new_model(len(tokenizer), size, max_model_len=MAX_MODEL_LEN, seed=0)
    add_context(model, tokenizer, context_format, seed=0)
    tokenizer.chat_template = style_template(style, context_format)
    tokenizer.eos_token = END_OF_TURN[style]
    with writing(target) as folder:
        save_policy(
            folder,
            model,
            tokenizer,
            tiny.policy_info("tiny"),
            objectives=context_format.objectives,
            conditioning=ContextConditioning(encoding=context_format.encoding),
            max_model_len=MAX_MODEL_LEN,
        )
        write_manifest(folder, Manifest(kind="policy"))
    return target
