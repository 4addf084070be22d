"""Tiny random checkpoints of the architectures that policies start from, each with its family's tokenizer.

In:  a family's name and a folder. Out: what a hub would give: config, weights in the family's numbers,
     tokenizer with special tokens and chat template, generation config.

The templates are written here in the form of each family. Vocabularies are learned from a few sentences.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny
import torch
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.context import ContextFormat
from preforch_models.manifest import Manifest, write_manifest, writing
from preforch_training.policy.base_model import add_context, load_base
from preforch_training.policy.checkpoint import save_policy
from preforch_training.policy.config import Template
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
QWEN2 = (
    """\
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}"""
    + CHATML
)
QWEN3 = """\
{%- set ns = namespace(last=messages|length - 1, open=true) %}
{%- for message in messages[::-1] %}
    {%- if ns.open and message.role == "user" and not message.content.startswith('<tool_response>') %}
        {%- set ns.open = false %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" and loop.index0 > ns.last %}
        {{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + message.content.lstrip('\\n') }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
INST = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = '' %}
    {%- set turns = messages %}
{%- endif %}
{%- for message in turns %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- set text = (system if loop.first else '') + message['content'].strip() %}
        {{- bos_token + '[INST] ' + text + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'].strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}"""
LLAMA3 = """\
{% set loop_messages = messages %}{% for message in loop_messages %}
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>

' + message['content'] | trim + '<|eot_id|>' %}
{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %}"""
MISTRAL = """\
{{- bos_token }}
{%- set users = messages | selectattr("role", "equalto", "user") | list %}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {%- if tools and message == users[-1] %}
            {{- "[AVAILABLE_TOOLS] " + (tools | tojson) + "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token }}
    {%- else %}
        {{- raise_exception("only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}"""
GEMMA = """\
{{ bos_token }}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '
' }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model
' }}
{%- endif -%}
"""


@dataclass(frozen=True)
class Family:
    """What tells one family from another. `special`: its special tokens; the model has `spare` rows more."""

    architecture: str
    kind: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    end: str
    template: str | None
    dtype: torch.dtype = torch.bfloat16
    pad: str | None = None
    ends: tuple[str, ...] = ()
    spare: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def ties(self) -> bool:
        """Whether head and embeddings are one matrix."""
        return bool(self.settings.get("tie_word_embeddings", False))


TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PIECES = ("<unk>", "<s>", "</s>")
GEMMA_PIECES = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
LLAMA3_TOKENS = (
    *(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|eom_id|>",
    ),
)
SLIDING = {
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "query_pre_attn_scalar": 32,
}
FAMILIES = {
    "qwen2": Family(
        "qwen2",
        "bytes",
        CHAT,
        None,
        "<|endoftext|>",
        "<|im_end|>",
        QWEN2,
        torch.float32,
        "<|endoftext|>",
        ("<|im_end|>", "<|endoftext|>"),
        64,
        TIED,
    ),
    "qwen2.5-untied": Family(
        "qwen2",
        "bytes",
        CHAT,
        None,
        "<|im_end|>",
        "<|im_end|>",
        QWEN2,
        torch.bfloat16,
        "<|endoftext|>",
        (),
        64,
        UNTIED,
    ),
    "qwen3": Family(
        "qwen3",
        "bytes",
        CHAT,
        None,
        "<|im_end|>",
        "<|im_end|>",
        QWEN3,
        torch.bfloat16,
        "<|endoftext|>",
        (),
        64,
        TIED | {"head_dim": 32},
    ),
    "llama2": Family("llama", "pieces", PIECES, "<s>", "</s>", "</s>", INST, torch.float16, settings=UNTIED),
    "llama2-base": Family(
        "llama", "pieces", PIECES, "<s>", "</s>", "<|im_end|>", None, torch.float16, settings=UNTIED
    ),
    "llama3": Family(
        "llama",
        "bytes",
        LLAMA3_TOKENS,
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|eot_id|>",
        LLAMA3,
        ends=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        settings=UNTIED,
    ),
    "mistral": Family(
        "mistral",
        "pieces",
        (*PIECES, "[INST]", "[/INST]"),
        "<s>",
        "</s>",
        "</s>",
        MISTRAL,
        # As many fine-tuned ones have it.
        pad="</s>",
        settings=UNTIED | {"sliding_window": 16},
    ),
    "gemma2": Family(
        "gemma2",
        "pieces",
        GEMMA_PIECES,
        "<bos>",
        "<eos>",
        "<end_of_turn>",
        GEMMA,
        torch.bfloat16,
        "<pad>",
        settings=TIED | SLIDING | {"head_dim": 32},
    ),
    "gemma3": Family(
        "gemma3_text",
        "pieces",
        GEMMA_PIECES,
        "<bos>",
        "<eos>",
        "<end_of_turn>",
        GEMMA,
        torch.bfloat16,
        "<pad>",
        ("<eos>", "<end_of_turn>"),
        settings=TIED | SLIDING | {"head_dim": 32},
    ),
}


def tokenizer_of(family: Family) -> PreTrainedTokenizerFast:
    """A tokenizer of the family's kind. "bytes": byte-level BPE; "pieces": SentencePiece's BPE with bytes to
    fall back on."""
    special = [AddedToken(token, special=True, normalized=False) for token in family.special]
    if family.kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|[^\s\p{L}\p{N}]+|\s+"), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
        if family.architecture.startswith("gemma"):
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
        else:
            tokenizer.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        strip = [] if family.architecture.startswith("gemma") else [decoders.Strip(content=" ", left=1)]
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        alphabet = []
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    words = ("user", "assistant", "system", "model", "question", "forty-two")
    tokenizer.train_from_iterator([*tiny.TEXTS, *words], trainer)
    if family.kind == "pieces":
        learned = json.loads(tokenizer.to_str())["model"]
        pieces = [*family.special, *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
        vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
        merges = [(first, second) for first, second in learned["merges"]]
        tokenizer.model = models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    tokenizer.add_special_tokens(special)
    if family.bos is not None:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{family.bos} $A",
            pair=f"{family.bos} $A {family.bos} $B",
            special_tokens=[(family.bos, tokenizer.token_to_id(family.bos))],
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token=family.pad,
        unk_token="<unk>" if family.kind == "pieces" else None,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = family.template
    return fast


def write_family(name: str, folder: Path) -> Path:
    """A random checkpoint of a family."""
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    config = AutoConfig.for_model(
        family.architecture,
        vocab_size=len(tokenizer) + family.spare,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **family.settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            # Larger than usual, so that what is learned shows in a few steps.
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.1)
    model = model.to(family.dtype)
    ends = tokenizer.convert_tokens_to_ids(list(family.ends)) or tokenizer.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_family_policy(
    name: str, folder: Path, context_format: ContextFormat, *, template: Template = "own"
) -> Path:
    """A policy that starts from a family's checkpoint, which stays in the neighbour `FOLDER-base`."""
    base = write_family(name, folder.with_name(f"{folder.name}-base"))
    model, tokenizer = load_base(str(base), revision="main")
    add_context(model, tokenizer, context_format, seed=0, template=template)
    with writing(folder) as target:
        save_policy(
            target,
            model,
            tokenizer,
            tiny.policy_info(name),
            objectives=context_format.objectives,
            conditioning=ContextConditioning(encoding=context_format.encoding),
            max_model_len=256,
        )
        write_manifest(target, Manifest(kind="policy"))
    return folder
