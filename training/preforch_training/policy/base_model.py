"""The policy as files: tokenizer with context tokens, chat template, policy card, and a small base model from scratch.

In:  a context format, and either texts to learn a vocabulary from (demo) or a pretrained checkpoint.
Out: a policy folder: safetensors, tokenizer with the chat template, `preference.json`; and prompts as token ids.

Source: paper, section 3.2 (`<Wk>` tokens). Departures:
1. A new embedding row starts as the mean of the rows of its pieces, so that a pretrained policy is not disturbed.
2. Levels start on a line, row = base_k + (2 level - 1) direction_k: neighbours are alike before anything is learned.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.context import ContextFormat, ControlStrings, chat_template, context_tokens
from preforch_models.conversation import Message
from preforch_models.manifest import digest, sha256_of
from preforch_models.objectives import Record
from preforch_models.policy_card import CARD_FILE, PolicyCard, read_policy_card
from preforch_models.weights import round_weights, uniform
from pydantic import Field
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

PAD = "<|endoftext|>"
START = "<|im_start|>"
END = "<|im_end|>"


class Scratch(Record):
    """Size of a base model that is made from scratch (Qwen2 architecture)."""

    vocabulary: int = Field(default=1400, ge=300)
    """Tokens of the byte-level BPE, without special tokens."""
    width: int = Field(default=128, ge=8)
    """Hidden size."""
    layers: int = Field(default=4, ge=1)
    """Transformer layers."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; the width is a multiple of it."""
    inner: int = Field(default=384, ge=8)
    """Width of the feed-forward layers."""


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learned from texts, with ChatML's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    # Roles occur once in every prompt; as words of their own they cost one token.
    tokenizer.train_from_iterator(chain(texts, ("system", "user", "assistant", "tool")), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (PAD, START, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False
    )


def new_model(vocabulary: int, size: Scratch, *, max_model_len: int, seed: int) -> Qwen2ForCausalLM:
    """A randomly initialised model."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        intermediate_size=size.inner,
        max_position_embeddings=max_model_len,
        tie_word_embeddings=True,
        initializer_range=size.width**-0.5 / 2,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def load_base(path: str, *, revision: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A pretrained checkpoint (folder or hub id) with ChatML's tokens; safetensors only."""
    model = AutoModelForCausalLM.from_pretrained(path, revision=revision, use_safetensors=True, dtype="auto")
    assert isinstance(model, PreTrainedModel)
    return model, load_tokenizer(path, revision=revision)


def load_tokenizer(path: str | Path, *, revision: str = "main") -> PreTrainedTokenizerFast:
    """A checkpoint's tokenizer. Raises ValueError for one that has no tokenizer.json."""
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"{path}: the tokenizer is a {type(tokenizer).__name__}; one with a tokenizer.json is needed"
        )
    return tokenizer


def add_context(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, context_format: ContextFormat, *, seed: int
) -> list[int]:
    """Give tokenizer and model the ChatML and context tokens, the chat template and the end token; ids of new rows."""
    known = tokenizer.get_vocab()
    added = [token for token in (START, END, *context_tokens(context_format)) if token not in known]
    pieces = {token: tokenizer.encode(token, add_special_tokens=False) for token in added}
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in added], special_tokens=True
    )
    _match_as_written(tokenizer)
    tokenizer.eos_token = END
    if tokenizer.pad_token is None or tokenizer.pad_token == END:
        # Padding that equals the end token would be masked out of the loss with it.
        tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.chat_template = chat_template(context_format)
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    vocabulary = tokenizer.get_vocab()
    ids = {token: vocabulary[token] for token in added}
    for matrix in _embedding_matrices(model):
        _start_rows(matrix, {ids[token]: pieces[token] for token in added})
        if context_format.encoding == "levels":
            _start_levels(matrix, tokenizer, context_format, seed=seed)
    for settings in (model.config, model.generation_config):
        settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    return sorted(ids.values())


def _match_as_written(tokenizer: PreTrainedTokenizerFast) -> None:
    """A token that is looked for in normalised text has look-alikes that nobody can escape: `＜s＞` with NFKC."""
    strict = [
        AddedToken(
            t.content,
            single_word=t.single_word,
            lstrip=t.lstrip,
            rstrip=t.rstrip,
            normalized=False,
            special=True,
        )
        for t in tokenizer.added_tokens_decoder.values()
        if t.special and t.normalized
    ]
    tokenizer.add_tokens(strict, special_tokens=True)


def _embedding_matrices(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Input and output embeddings; one matrix where they are tied."""
    matrices = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    return matrices[:1] if matrices[0] is matrices[1] else matrices


@torch.no_grad()
def _start_rows(matrix_VD: torch.nn.Parameter, pieces: Mapping[int, Sequence[int]]) -> None:
    """Each new row becomes the mean of its pieces' rows."""
    for row, parts in pieces.items():
        matrix_VD[row] = matrix_VD[list(parts)].mean(dim=0)


@torch.no_grad()
def _start_levels(
    matrix_VD: torch.nn.Parameter,
    tokenizer: PreTrainedTokenizerFast,
    context_format: ContextFormat,
    *,
    seed: int,
) -> None:
    """row(k, level) = base_k + (2 level - 1) direction_k; long directions: told apart early."""
    generator = torch.Generator().manual_seed(seed)
    scale = matrix_VD.std().item()
    for k in range(len(context_format.objectives)):
        token = f"<W{k + 1}>"
        base_D = matrix_VD[tokenizer.convert_tokens_to_ids(token)].clone()
        base_D += scale * torch.randn(base_D.shape, generator=generator).to(base_D)
        direction_D = 3 * scale * torch.randn(base_D.shape, generator=generator).to(base_D)
        for step in range(context_format.units + 1):
            level = step / context_format.units
            row = tokenizer.convert_tokens_to_ids(f"{token} {level:.2f}")
            matrix_VD[row] = base_D + (2 * level - 1) * direction_D


def save_policy(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    context_format: ContextFormat,
    *,
    max_model_len: int,
    name: str,
) -> PolicyCard:
    """Write checkpoint, tokenizer and policy card. The card's revision hashes everything else."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
    card = PolicyCard(
        objectives=context_format.objectives,
        conditioning=ContextConditioning(encoding=context_format.encoding),
        control_strings=tuple(special),
        max_model_len=max_model_len,
        revision=digest(hashes)[:16],
        name=name,
    )
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return card


class PolicyTokenizer:
    """Conversations and responses as the token ids of one policy; text never becomes a control token."""

    def __init__(self, folder: Path) -> None:
        self.card = read_policy_card(folder)
        self.tokenizer = load_tokenizer(folder)
        self.end_id: int = self.tokenizer.eos_token_id
        self._control = ControlStrings(self.card.control_strings)

    @property
    def context_format(self) -> ContextFormat:
        """How this policy reads weights. Raises ValueError for one that reads none."""
        if self.card.context_format is None:
            raise ValueError(
                f"policy {self.card.name!r} reads no context, conditioning is {self.card.conditioning.kind!r}"
            )
        return self.card.context_format

    def prompt_ids(self, messages: Sequence[Message], weights: Mapping[str, float]) -> list[int]:
        """The prompt as the policy's own chat template renders it, up to where the response begins."""
        turns = [{"role": m.role, "content": self._control.escape(m.content)} for m in messages]
        text = self.tokenizer.apply_chat_template(
            turns, weights=dict(weights), add_generation_prompt=True, tokenize=False
        )
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def has_room(self, messages: Sequence[Message], *, response_tokens: int) -> bool:
        """Whether a prompt leaves room for a response of that length."""
        weights = round_weights(uniform(self.context_format.objectives), self.context_format.units)
        return len(self.prompt_ids(messages, weights)) + response_tokens <= self.card.max_model_len

    def response_ids(self, response: str) -> list[int]:
        """A response without the end token."""
        ids: list[int] = self.tokenizer.encode(self._control.escape(response), add_special_tokens=False)
        return ids

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of a response; special tokens in it stay visible."""
        return str(self.tokenizer.decode(list(token_ids)))
