"""A toy world for the tests of the training stages: tiny random encoders and a rule that anyone can learn.

A prompt is "joke about NOUN" or "danger near NOUN". The response that says "haha" is funny, the one that says
"careful" is safe; overall, jokes want the funny one and dangers the safe one.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from preforch_models.conversation import Message
from preforch_training import pipeline
from preforch_training.config import RunConfig
from preforch_training.pipeline import open_run
from preforch_training.policy.base_model import train_tokenizer
from preforch_training.records import PreferencePair, Prompt
from preforch_training.run import Run
from preforch_training.sampling.vllm import Generation, Sampler, SampleRequest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

NAMES = ("funny", "safe")
PLACES = (
    "bear",
    "bridge",
    "cliff",
    "dog",
    "engine",
    "fire",
    "garden",
    "hotel",
    "island",
    "jungle",
    "kettle",
    "lamp",
)
NUMBERS = ("one", "two", "three", "four", "five")
FUNNY, SAFE = "haha what fun", "careful go slow"
CHAT_TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = "joke about danger near haha what fun careful go slow user: assistant: old text"


def word_tokenizer() -> Tokenizer:
    """One token a word of the toy world."""
    vocabulary = {
        word: i for i, word in enumerate(dict.fromkeys([*_SPECIAL, *_WORDS.split(), *PLACES, *NUMBERS]))
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def save_tokenizer(folder: Path, *, brackets: bool, chat_template: str | None = None) -> None:
    """With `brackets`, a text becomes `[CLS] text [SEP]`."""
    tokenizer = word_tokenizer()
    if brackets:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", clean_up_tokenization_spaces=False
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)


def bert_config(*, layers: int = 1, **options: Any) -> BertConfig:
    """A BERT of 32 numbers a token."""
    return BertConfig(
        vocab_size=word_tokenizer().get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        # Larger than BERT's, so that texts get visibly different vectors.
        initializer_range=0.3,
        **options,
    )


def write_encoder(folder: Path, *, layers: int = 1, dropout: float = 0.1) -> Path:
    """A tiny random BERT with its tokenizer."""
    options = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(bert_config(layers=layers, **options)).save_pretrained(folder)
    save_tokenizer(folder, brackets=True)
    return folder


def write_bert_classifier(folder: Path) -> Path:
    """A random BERT classifier with two labels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(bert_config(num_labels=2))
        torch.nn.init.normal_(model.classifier.weight)
        model.save_pretrained(folder)
    save_tokenizer(folder, brackets=True)
    return folder


def write_qwen_classifier(folder: Path, *, padding: str = "right") -> Path:
    """A random Qwen2 classifier with one label and a chat template."""
    tokenizer = train_tokenizer(questions(), vocabulary=300)
    tokenizer.chat_template, tokenizer.padding_side = CHAT_TEMPLATE, padding
    tokenizer.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForSequenceClassification(config)
        torch.nn.init.normal_(model.score.weight)
        model.save_pretrained(folder)
    return folder


def funny(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A reward function."""
    return [float(response.count("haha")) for response in responses]


def safe(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A reward function."""
    return [float(response.count("careful")) for response in responses]


def length(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A reward function under which every prompt matters."""
    return [float(len(prompt) + len(response)) for prompt, response in zip(prompts, responses, strict=True)]


def fails(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A broken reward function."""
    raise ZeroDivisionError("no responses")


def not_a_number(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A broken reward function."""
    return [float("nan") if "haha" in response else 0.0 for response in responses]


def one_too_few(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """A broken reward function."""
    return [0.0] * (len(responses) - 1)


def questions() -> list[str]:
    """All prompts."""
    return [
        f"{kind} {place} {n}" for kind, place, n in product(("joke about", "danger near"), PLACES, NUMBERS)
    ]


def pair_rows() -> list[dict[str, str]]:
    """Rows of a pairs file: both objectives and overall of every prompt."""
    rows = []
    for prompt in questions():
        wanted = {"funny": FUNNY, "safe": SAFE, "overall": FUNNY if prompt.startswith("joke") else SAFE}
        for objective, chosen in wanted.items():
            rejected = SAFE if chosen == FUNNY else FUNNY
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "objective": objective})
    return rows


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    """One JSON value a line; a string is a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def make_prompt(*turns: str, split: str = "train") -> Prompt:
    """A conversation that begins and ends with the user."""
    messages = tuple(Message(role=("user", "assistant")[i % 2], content=text) for i, text in enumerate(turns))
    return Prompt(id=turns[-1], messages=messages, split=split)


def make_pairs(objective: str) -> tuple[dict[str, Prompt], list[PreferencePair]]:
    """The pairs of an objective as records, all training ones."""
    prompts = {question: make_prompt(question) for question in questions()}
    pairs = [
        PreferencePair(
            id=str(i),
            prompt_id=row["prompt"],
            split="train",
            **{k: row[k] for k in ("chosen", "rejected", "objective")},
        )
        for i, row in enumerate(pair_rows())
        if row["objective"] == objective
    ]
    return prompts, pairs


def raw_config(folder: Path, **sections: Any) -> dict[str, Any]:
    """A complete config with function rewards as TOML would give it; its source is `folder/pairs.jsonl`."""
    base: dict[str, Any] = {
        "preset": "recommended",
        "run": {"folder": str(folder / "run"), "seed": 1},
        "objectives": [{"name": name} for name in NAMES],
        "data": {
            "source": "files",
            "root": str(folder),
            "sources": [{"path": "pairs.jsonl", "columns": {"objective": "objective"}}],
            "validation_share": 0.2,
            "test_share": 0.2,
        },
        "reward": {"folds": 2}
        | {name: {"kind": "function", "function": f"small_world:{name}"} for name in NAMES},
        "scores": {"calibration": "zscore"},
        "orchestrator": {
            "encoder": "none",
            "max_tokens": 24,
            "target": "advantage_softmax",
            "tau": 1.0,
            "loss": "forward",
            "confidence": "shrink",
            "learning_rate": 5e-3,
            "batch_size": 16,
            "epochs": 4,
        },
    }
    return {
        key: {**base.get(key, {}), **sections[key]}
        if isinstance(sections.get(key), dict)
        else sections.get(key, value)
        for key, value in {**base, **sections}.items()
    }


def make_config(folder: Path, **sections: Any) -> RunConfig:
    """`raw_config`, validated."""
    return RunConfig.model_validate(raw_config(folder, **sections))


def make_run(folder: Path, **sections: Any) -> tuple[Run, RunConfig]:
    """A run whose pairs file is there."""
    write_rows(folder / "pairs.jsonl", pair_rows())
    config = make_config(folder, **sections)
    return open_run(config), config


def build(stage: str, run: Run, config: RunConfig, sampler: Sampler | None = None) -> None:
    """One stage of the pipeline; without a sampler nothing can be sampled."""
    pipeline.build(stage, run, config, sampler or NoSampler())


class NoSampler:
    """Fails when it is asked for a response."""

    peak_memory_mib = 0.0

    def sample(
        self,
        policy: Path,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
    ) -> list[list[Generation]]:
        raise AssertionError(f"nothing should be sampled from {policy}")

    def close(self) -> None:
        """There is nothing to give back."""
