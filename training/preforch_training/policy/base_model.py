"""The model that every policy of a run starts from: pretrained, or small and from scratch, with the context's
tokens.

In:  a context format, and either texts to learn a vocabulary from (demo) or a pretrained checkpoint.
Out: model and tokenizer with the tokens of the context, and the chat template that prints it at the end of
     the last user turn: the base's own template where it has one, else ChatML.

Source: paper, section 3.2 (`<Wk>` tokens). Departures:
1. A new embedding row starts as the mean of the rows of its pieces, so that a pretrained policy is not
   disturbed.
2. Levels start on a line, row = base_k + (2 level - 1) direction_k: neighbours are alike before anything is
   learned.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import torch
from preforch_models.context import ContextFormat, chat_template, context_tokens, objective_tokens
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from preforch_training.policy.config import Scratch, Template
from preforch_training.policy.tokenizer import check_out_of_reach, load_tokenizer
from preforch_training.policy.turns import END, START, turns_for
from preforch_training.tuning.padding import PAD, make_room, separate_pad


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learned from texts, with ChatML's special tokens. Every digit is a token of
    its own: a number that was never seen is made of what was."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
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
    """A pretrained checkpoint (folder or hub id) in the numbers that it is stored in; safetensors only."""
    model = AutoModelForCausalLM.from_pretrained(path, revision=revision, use_safetensors=True, dtype="auto")
    assert isinstance(model, PreTrainedModel)
    return model, load_tokenizer(path, revision=revision)


def add_context(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    context_format: ContextFormat,
    *,
    seed: int,
    template: Template = "own",
) -> list[int]:
    """Give tokenizer and model the context tokens, the chat template with the context, the token that ends a
    response and a pad token; ids of new rows. Raises ValueError for a base whose template will not do."""
    turns = turns_for(tokenizer, template)
    known = tokenizer.get_vocab()
    added = [token for token in (*turns.tokens, *context_tokens(context_format)) if token not in known]
    pieces = {token: tokenizer.encode(token, add_special_tokens=False) for token in added}
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in added], special_tokens=True
    )
    match_as_written(tokenizer)
    tokenizer.eos_token = turns.end
    separate_pad(tokenizer, end=turns.end)
    tokenizer.chat_template = chat_template(context_format, turns.template)
    check_out_of_reach(tokenizer)
    # Rows that no pieces make, that of a new pad token, are drawn: by the seed and nothing drawn before.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        make_room(model, tokenizer)
    vocabulary = tokenizer.get_vocab()
    ids = {token: vocabulary[token] for token in added}
    for matrix in _embedding_matrices(model):
        _start_rows(matrix, {ids[token]: pieces[token] for token in added})
        if context_format.encoding == "levels":
            _start_levels(matrix, tokenizer, context_format, seed=seed)
    _end_with(model, tokenizer)
    return sorted(ids.values())


def _end_with(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """A response ends with the tokenizer's end token, and with what else ended one before (tool calls)."""
    before = model.generation_config.eos_token_id
    others = [before] if isinstance(before, int) else before or []
    ends = list(dict.fromkeys([tokenizer.eos_token_id, *others]))
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.config.get_text_config().eos_token_id = tokenizer.eos_token_id
    for settings in (model.config.get_text_config(), model.generation_config):
        settings.pad_token_id = tokenizer.pad_token_id


def match_as_written(tokenizer: PreTrainedTokenizerFast) -> None:
    """A token that is looked for in normalised text has look-alikes that nobody can escape: `＜s＞` with
    NFKC."""
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
    tokens = objective_tokens(len(context_format.objectives), context_format.letter)
    for token, values in zip(tokens, context_format.values, strict=True):
        base_D = matrix_VD[tokenizer.convert_tokens_to_ids(token)].clone()
        base_D += scale * torch.randn(base_D.shape, generator=generator).to(base_D)
        direction_D = 3 * scale * torch.randn(base_D.shape, generator=generator).to(base_D)
        for step, value in enumerate(values):
            level = step / (len(values) - 1)
            row = tokenizer.convert_tokens_to_ids(f"{token} {value}")
            matrix_VD[row] = base_D + (2 * level - 1) * direction_D
