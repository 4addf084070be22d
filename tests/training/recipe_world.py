"""The recipes at the size of a test: tiny random models of the same architectures, and data like theirs.

In:  an empty folder. Out: settings for `preforch train` that point a recipe at these and shrink its sizes;
     nothing else differs from the recipe.
"""

import json
import tomllib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from small_world import FUNNY, SAFE, questions
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
RECIPES = ("hh-assistant", "reddit-summary", "ultrafeedback")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Tokenizers.


def write_tokenizer(
    folder: Path, *, special: Sequence[str], template: str = "", **named: Any
) -> dict[str, int]:
    """A byte-level BPE tokenizer, special tokens first. `template` says where they stand in a text and in a
    pair of texts. Returns their ids, and the size of the vocabulary under ""."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320 + len(special),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [*questions(), FUNNY, SAFE, "Human Assistant SUBREDDIT TITLE POST"], trainer
    )
    vocabulary = tokenizer.get_vocab()
    ids = {token: vocabulary[token] for token in special}
    if template:
        single, pair = template.split(" | ")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=list(ids.items())
        )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named
    ).save_pretrained(folder)
    return {**ids, "": len(vocabulary)}


def save(folder: Path, build: Callable[[], PreTrainedModel], *, dtype: torch.dtype = torch.float32) -> Path:
    """A random model, the same every time; the head of a classifier large enough to tell texts apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
        for name, weight in model.named_parameters():
            if name.startswith(("score", "classif")) and weight.ndim == 2:
                torch.nn.init.normal_(weight)
    model.to(dtype).save_pretrained(folder)
    return folder


# Policies: embeddings not tied, as those of the recipes; heads of at least 32, as vLLM on CPUs needs them.


def write_llama2(folder: Path) -> Path:
    """LLaMA-2-7B: fp16, a head for every key, no chat template, no padding token."""
    ids = write_tokenizer(
        folder,
        special=("<unk>", "<s>", "</s>"),
        template="<s> $A | <s> $A <s> $B",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    config = LlamaConfig(
        vocab_size=ids[""],
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=ids["<s>"],
        eos_token_id=ids["</s>"],
    )
    return save(folder, lambda: LlamaForCausalLM(config), dtype=torch.float16)


def write_qwen25(folder: Path, *, tied: bool = False) -> Path:
    """Qwen2.5: bf16, biased attention, fewer heads for keys; only the 0.5B's embeddings are tied."""
    ids = write_tokenizer(
        folder,
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )
    config = Qwen2Config(
        vocab_size=ids[""] + 5,  # more rows than tokens, as there are
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
    )
    return save(folder, lambda: Qwen2ForCausalLM(config), dtype=torch.bfloat16)


def write_qwen25_tied(folder: Path) -> Path:
    """Qwen2.5-0.5B, which the rewards start from."""
    return write_qwen25(folder, tied=True)


# Encoder of the orchestrator, classifiers.


def write_xlmr(folder: Path) -> Path:
    """xlm-roberta-base: positions start after the padding id."""
    ids = write_tokenizer(
        folder,
        special=("<s>", "<pad>", "</s>", "<unk>"),
        template="<s> $A </s> | <s> $A </s> </s> $B </s>",
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    config = XLMRobertaConfig(
        vocab_size=ids[""],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=ids["<pad>"],
    )
    return save(folder, lambda: XLMRobertaModel(config))


def write_gpt2_classifier(folder: Path) -> Path:
    """Ray2333's and Tristan's: GPT-2 with one label, whose padding token is the end of text."""
    ids = write_tokenizer(
        folder,
        special=("<|endoftext|>",),
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    end = ids["<|endoftext|>"]
    config = GPT2Config(
        vocab_size=ids[""],
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        num_labels=1,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    return save(folder, lambda: GPT2ForSequenceClassification(config))


def write_bart_classifier(folder: Path) -> Path:
    """CogComp's: BART with two labels, read at the last end token."""
    ids = write_tokenizer(
        folder,
        special=("<s>", "<pad>", "</s>", "<unk>"),
        template="<s> $A </s> | <s> $A </s> </s> $B </s>",
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    config = BartConfig(
        vocab_size=ids[""],
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=128,
        num_labels=2,
        bos_token_id=ids["<s>"],
        pad_token_id=ids["<pad>"],
        eos_token_id=ids["</s>"],
        decoder_start_token_id=ids["</s>"],
        forced_eos_token_id=ids["</s>"],
    )
    return save(folder, lambda: BartForSequenceClassification(config))


def write_deberta_classifier(folder: Path) -> Path:
    """OpenAssistant's: DeBERTa-v3 with one label, relative positions alone."""
    with warnings.catch_warnings():
        # transformers' module compiles functions by torch.jit.script when it is imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformers import DebertaV2Config, DebertaV2ForSequenceClassification
    ids = write_tokenizer(
        folder,
        special=("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"),
        template="[CLS] $A [SEP] | [CLS] $A [SEP] $B [SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )
    config = DebertaV2Config(
        vocab_size=ids[""],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        pooler_hidden_size=32,
        num_labels=1,
        pad_token_id=ids["[PAD]"],
    )
    return save(folder, lambda: DebertaV2ForSequenceClassification(config))


def write_distilbert_classifier(folder: Path) -> Path:
    """mohameddhiab's: DistilBERT with two labels."""
    ids = write_tokenizer(
        folder,
        special=("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
        template="[CLS] $A [SEP] | [CLS] $A [SEP] $B [SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    )
    config = DistilBertConfig(
        vocab_size=ids[""],
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=48,
        max_position_embeddings=64,
        num_labels=2,
        pad_token_id=ids["[PAD]"],
    )
    return save(folder, lambda: DistilBertForSequenceClassification(config))


MODELS: dict[str, Callable[[Path], Path]] = {
    "meta-llama/Llama-2-7b-hf": write_llama2,
    "Qwen/Qwen2.5-7B": write_qwen25,
    "Qwen/Qwen2.5-0.5B": write_qwen25_tied,
    "FacebookAI/xlm-roberta-base": write_xlmr,
    "Ray2333/gpt2-large-helpful-reward_model": write_gpt2_classifier,
    "Ray2333/gpt2-large-harmless-reward_model": write_gpt2_classifier,
    "mohameddhiab/humor-no-humor": write_distilbert_classifier,
    "Tristan/gpt2_reward_summarization": write_gpt2_classifier,
    "CogComp/bart-faithful-summary-detector": write_bart_classifier,
    "OpenAssistant/reward-model-deberta-v3-large-v2": write_deberta_classifier,
}
"""Every model of the recipes, by its hub id."""

# Data.


def liked(prompt: str) -> tuple[str, str]:
    """Chosen and rejected."""
    return (FUNNY, SAFE) if prompt.startswith("joke") else (SAFE, FUNNY)


def turns(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def hh_rows() -> list[dict[str, Any]]:
    """Dahoas/full-hh-rlhf; the last row has an empty response, as some there have."""
    rows = [
        {
            "prompt": f"\n\nHuman: {p}\n\nAssistant:",
            "response": f" {c}",
            "chosen": f" {c}",
            "rejected": f" {r}",
        }
        for p in questions()
        for c, r in [liked(p)]
    ]
    earlier = f"\n\nHuman: {questions()[0]}\n\nAssistant: {SAFE}\n\nHuman: {questions()[1]}\n\nAssistant:"
    return [*rows, {**rows[0], "prompt": earlier}, {**rows[1], "chosen": " "}]


def helpful_rows() -> list[dict[str, Any]]:
    """trl-lib/hh-rlhf-helpful-base."""
    return [
        {"prompt": turns(p, "")[:1], "chosen": turns(p, c)[1:], "rejected": turns(p, r)[1:]}
        for p in questions()
        for c, r in [liked(p)]
    ]


def summary_rows() -> list[dict[str, Any]]:
    """trl-lib/tldr-preference."""
    return [
        {"prompt": f"SUBREDDIT: r/a\n\nTITLE: t\n\nPOST: {p}\n\nTL;DR:", "chosen": c, "rejected": r}
        for p in questions()
        for c, r in [liked(p)]
    ]


def rated_rows() -> list[dict[str, Any]]:
    """openbmb/UltraFeedback; one rating is not a number, as some there are."""
    aspects = ("instruction_following", "truthfulness", "honesty", "helpfulness")
    ratings = ["N/A", "1", "2", "3", "4", "5"]
    rows: list[dict[str, Any]] = []
    for number, prompt in enumerate(questions()):
        completions = [
            {
                "model": f"m{place}",
                "response": response,
                "annotations": {
                    aspect: {
                        "Rating": ratings[0 if number == place == k == 0 else 1 + (place + k * number) % 5],
                        "Rationale": "because",
                    }
                    for k, aspect in enumerate(aspects)
                },
            }
            for place, response in enumerate((*liked(prompt), f"{FUNNY} {SAFE}", "old text"))
        ]
        rows.append({"source": "s", "instruction": prompt, "completions": completions})
    return rows


def binarised_rows() -> list[dict[str, Any]]:
    """HuggingFaceH4/ultrafeedback_binarized."""
    return [
        {"prompt": p, "prompt_id": p, "chosen": turns(p, c), "rejected": turns(p, r), "score_chosen": 8.0}
        for p in questions()
        for c, r in [liked(p)]
    ]


DATASETS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "Dahoas/full-hh-rlhf": hh_rows,
    "trl-lib/hh-rlhf-helpful-base": helpful_rows,
    "trl-lib/tldr-preference": summary_rows,
    "openbmb/UltraFeedback": rated_rows,
    "HuggingFaceH4/ultrafeedback_binarized": binarised_rows,
}
"""Every data set of the recipes, by its hub id."""


def write_dataset(folder: Path, rows: Iterable[dict[str, Any]], *, split: str) -> Path:
    """A data set as the hub keeps it."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


# Settings.


@dataclass(frozen=True)
class Recipe:
    """A recipe, and the settings that make a dry run of it."""

    config: Path
    settings: list[str]


def dry_run(root: Path, name: str) -> Recipe:
    """Write what a recipe reads below `root`, and say it in settings for `preforch train --set`."""
    raw = tomllib.loads((CONFIGS / f"{name}.toml").read_text(encoding="utf-8"))

    def tiny(model: str) -> str:
        folder = root / "models" / model.replace("/", "--")
        return str(folder if folder.exists() else MODELS[model](folder))

    sources = []
    for source in raw["data"]["sources"]:
        folder = root / "datasets" / source["dataset"].replace("/", "--")
        write_dataset(folder, DATASETS[source["dataset"]](), split=source["dataset_split"])
        sources.append(source | {"dataset": str(folder)})
    settings = [
        f"data.sources={inline(sources)}",
        f"orchestrator.encoder={tiny(raw['orchestrator']['encoder'])}",
    ]
    settings += [f"policy.base={tiny(raw['policy']['base'])}", *SIZES]
    for objective, reward in raw["reward"].items():
        key = "model" if "model" in reward else "base"
        settings += [f"reward.{objective}.{key}={tiny(reward[key])}", f"reward.{objective}.max_tokens=48"]
        if reward["kind"] == "bradley_terry":
            settings += [f"reward.{objective}.batch_size=16", f"reward.{objective}.save_steps=4"]
    return Recipe(CONFIGS / f"{name}.toml", settings)


def inline(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


SIZES = [
    "data.validation_share=0.2",
    "data.test_share=0.2",
    "orchestrator.max_tokens=48",
    "orchestrator.epochs=2",
    "policy.max_model_len=256",
    "policy.max_response_tokens=16",
    *(
        f"policies.wic.{name}={value}"
        for part in ("offline", "online")
        for name, value in ((f"{part}.steps", 4), (f"{part}.batch_size", 2), (f"{part}.save_steps", 2))
    ),
    "policies.wic.online.prompts=6",
    "bundle.golden_prompts=4",
    "report.sweep_prompts=2",
    "report.utility_prompts=2",
    "report.grid_step=0.5",
    "report.replicates=100",
]
"""What makes a recipe small. The same for all of them."""
