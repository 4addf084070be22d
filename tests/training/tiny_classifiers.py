"""Tiny random classifiers of the architectures of public reward models, with tokenizers of their kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import small_world
import torch
from preforch_training.policy.base_model import train_tokenizer
from tokenizers import AddedToken, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)


def write_gpt2(folder: Path) -> Path:
    """GPT-2, whose one special token begins and ends texts; without a pad token."""
    tokenizer = small_tokenizer()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    end = fast.eos_token_id
    config = GPT2Config(
        vocab_size=len(fast),
        n_positions=256,
        n_embd=32,
        n_layer=2,
        n_head=2,
        num_labels=1,
        bos_token_id=end,
        eos_token_id=end,
        initializer_range=0.2,
    )
    return _save(folder, GPT2ForSequenceClassification, config, fast)


def write_deberta(folder: Path) -> Path:
    """DeBERTa v2: relative positions, no segments, `[CLS] a [SEP] b [SEP]`."""
    fast = bracketed("[CLS]", "[SEP]", pad="[PAD]")
    config = AutoConfig.for_model(
        "deberta-v2",
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        relative_attention=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
        num_labels=1,
        pad_token_id=fast.pad_token_id,
        initializer_range=0.2,
    )
    return _save(folder, AutoModelForSequenceClassification.from_config, config, fast)


def write_bart(folder: Path) -> Path:
    """BART: reads the state of the last `</s>`; `<s> a </s></s> b </s>`."""
    fast = bracketed("<s>", "</s>", pad="<pad>", between="</s> </s>")
    config = BartConfig(
        vocab_size=len(fast),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=128,
        num_labels=2,
        pad_token_id=fast.pad_token_id,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        decoder_start_token_id=fast.eos_token_id,
        init_std=0.2,
    )
    return _save(folder, BartForSequenceClassification, config, fast)


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of the toy world."""
    return train_tokenizer(small_world.questions(), vocabulary=300)


def bracketed(begin: str, end: str, *, pad: str, between: str | None = None) -> PreTrainedTokenizerFast:
    """The same with brackets around a text, or around two."""
    tokenizer = small_tokenizer().backend_tokenizer
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (begin, end, pad)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {between or end} $B {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        pad_token=pad,
        clean_up_tokenization_spaces=False,
    )


def _save(
    folder: Path,
    kind: Callable[[Any], PreTrainedModel],
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
