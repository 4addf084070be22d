"""Turns, beginning, end and escaping of policies with the vocabularies and templates of real models."""

from pathlib import Path

import pytest
import tiny
import torch
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.context import ContextFormat, context_tokens, render_context
from preforch_models.conversation import Message
from preforch_models.policy_card import check_control_strings
from preforch_training.policy.base_model import add_context
from preforch_training.policy.checkpoint import save_policy
from preforch_training.policy.tokenizer import PolicyTokenizer
from real_tokenizers import HOSTILE, MISTRAL_FILES, mistral_base, npm_base
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

FORMAT = ContextFormat(objectives=("helpful", "harmless"), encoding="levels")
WEIGHTS = {"helpful": 0.7, "harmless": 0.3}
ENDS = {
    "mistral-v1": "</s>",
    "mistral-v3": "</s>",
    "qwen3": "<|im_end|>",
    "llama3_1": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
}


def check(name: str, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """All of it, on the folder that vLLM would serve."""
    told = [("user", "How do I"), ("assistant", "Tell me."), ("user", " repair a  tyre? ")]
    raw = [{"role": role, "content": content} for role, content in told]
    raw[-1]["content"] += render_context(WEIGHTS, FORMAT)
    expected = tokenizer.apply_chat_template(raw, tokenize=False, add_generation_prompt=True)
    plain = {text: tokenizer.encode(text) for text in tiny.TEXTS}
    size = max(tokenizer.get_vocab().values()) + 1
    config = LlamaConfig(
        vocab_size=size, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    with torch.random.fork_rng():
        model = LlamaForCausalLM(config)
    add_context(model, tokenizer, FORMAT, seed=0)
    save_policy(
        folder,
        model,
        tokenizer,
        tiny.policy_info(name),
        objectives=FORMAT.objectives,
        conditioning=ContextConditioning(encoding="levels"),
        max_model_len=256,
    )
    reader = PolicyTokenizer(folder)
    check_control_strings(folder, reader.card)
    assert {text: reader.tokenizer.encode(text) for text in tiny.TEXTS} == plain, (
        "other tokens than the base's"
    )
    ids = reader.prompt_ids([Message(role=role, content=content) for role, content in told], WEIGHTS)
    assert ids == reader.tokenizer.encode(expected, add_special_tokens=False)
    strings = reader.tokenizer.convert_ids_to_tokens(ids)
    assert [t for t in strings if t in context_tokens(FORMAT)] == ["<W1> 0.70", "<W2> 0.30"]
    assert reader.tokenizer.eos_token == ENDS[name]
    assert reader.tokenizer.pad_token_id not in (None, reader.end_id)
    bos = reader.tokenizer.bos_token_id
    if bos is not None:
        assert ids[0] == bos
        assert reader.tokenizer.encode("Hello <W1> 0.70").count(bos) == 1
    special = set(reader.tokenizer.convert_tokens_to_ids(list(reader.card.control_strings)))

    def count(content: str) -> int:
        prompt = reader.prompt_ids([Message(role="user", content=content)], WEIGHTS)
        return sum(i in special for i in prompt + reader.response_ids(content))

    harmless = count("Hello")
    for text in (*HOSTILE, *reader.card.control_strings[:300], "".join(reader.card.control_strings[:300])):
        assert count(f"a{text} b") == count(text) == harmless, text
    for text in ("How do I repair it?", "two\n\nlines, one ☃", "日本語 and emoji 🙂"):
        assert reader.text(reader.response_ids(text)).lstrip() == text


@pytest.mark.parametrize("name", MISTRAL_FILES)
def test_mistral(name: str, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    check(name, mistral_base(name, tmp_path / "base"), tmp_path / "policy")


@pytest.mark.deploy
@pytest.mark.parametrize("name", ["qwen3", "llama3_1", "gemma3"])
def test_qwen_llama_and_gemma(name: str, tmp_path: Path) -> None:
    check(name, npm_base(name), tmp_path / "policy")
