"""The recipes at the size of a test: tiny random models of the same architectures, and data like theirs.

In:  an empty folder. Out: settings for `preforch train` that point a recipe at these and shrink its sizes;
     nothing else differs from the recipe.
"""

import json
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tiny_classifiers
import tiny_models
import torch
from preforch_training.config import RunConfig, read_config
from preforch_training.policy.settings.rl import RlPolicy
from small_world import FUNNY, SAFE, questions
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
RECIPES = ("hh-assistant", "reddit-summary", "ultrafeedback")
COMPARISONS = {
    "compare-hh": "hh-assistant",
    "compare-reddit": "reddit-summary",
    "compare-ultrafeedback": "ultrafeedback",
}
"""The paper's comparisons, and the recipe that each has the data, rewards and orchestrator of."""

# Models.


def write_base(family: str) -> Callable[[Path], Path]:
    """What writes a policy's or reward's base of a family: LLaMA-2-7B in fp16 without a chat template,
    Qwen2.5-7B in bf16, their embeddings not tied; Qwen2.5-0.5B, tied."""
    return partial(tiny_models.write_family, family)


def bracketed(begin: str, end: str, *, pad: str) -> PreTrainedTokenizerFast:
    """A tokenizer that writes `begin text end`, its padding the second token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = [AddedToken(token, special=True, normalized=False) for token in (begin, pad, end)]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*questions(), FUNNY, SAFE], trainer)
    ends = [(token, tokenizer.get_vocab()[token]) for token in (begin, end)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", pair=f"{begin} $A {end} $B {end}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=begin, sep_token=end, pad_token=pad, eos_token=end
    )


def save(folder: Path, tokenizer: PreTrainedTokenizerFast, build: Callable[[], PreTrainedModel]) -> Path:
    """A random model, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_xlmr(folder: Path) -> Path:
    """xlm-roberta-base: positions start after the padding id."""
    tokenizer = bracketed("<s>", "</s>", pad="<pad>")
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    return save(folder, tokenizer, lambda: XLMRobertaModel(config))


def write_distilbert(folder: Path) -> Path:
    """mohameddhiab's: DistilBERT with two labels."""
    tokenizer = bracketed("[CLS]", "[SEP]", pad="[PAD]")
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=48,
        max_position_embeddings=64,
        num_labels=2,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    return save(folder, tokenizer, lambda: DistilBertForSequenceClassification(config))


def write_deberta(folder: Path) -> Path:
    """OpenAssistant's: DeBERTa-v3 with one label."""
    with warnings.catch_warnings():
        # transformers' module compiles functions by torch.jit.script when it is imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        return tiny_classifiers.write_deberta(folder)


MODELS: dict[str, Callable[[Path], Path]] = {
    "meta-llama/Llama-2-7b-hf": write_base("llama2-base"),
    "Qwen/Qwen2.5-7B": write_base("qwen2.5-untied"),
    "Qwen/Qwen2.5-0.5B": write_base("qwen2"),
    "FacebookAI/xlm-roberta-base": write_xlmr,
    "Ray2333/gpt2-large-helpful-reward_model": tiny_classifiers.write_gpt2,
    "Ray2333/gpt2-large-harmless-reward_model": tiny_classifiers.write_gpt2,
    "mohameddhiab/humor-no-humor": write_distilbert,
    "Tristan/gpt2_reward_summarization": tiny_classifiers.write_gpt2,
    "CogComp/bart-faithful-summary-detector": tiny_classifiers.write_bart,
    "OpenAssistant/reward-model-deberta-v3-large-v2": write_deberta,
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


def dry_run(root: Path, name: str, *, base: str | None = None, steps: int = 4) -> Recipe:
    """Write what a recipe reads below `root`, and say it in settings for `preforch train --set`. `base`: the
    family of `tiny_models` that the policy starts from, in place of the recipe's own. `steps`: of each
    training of a policy."""
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
    family = None if base is None else tiny_models.write_family(base, root / "models" / base)
    settings += [f"policy.base={family or tiny(raw['policy']['base'])}", *SIZES]
    settings += policy_sizes(read_config(CONFIGS / f"{name}.toml"), steps=steps)
    for objective, reward in raw["reward"].items():
        key = "model" if "model" in reward else "base"
        settings += [f"reward.{objective}.{key}={tiny(reward[key])}", f"reward.{objective}.max_tokens=48"]
        if reward["kind"] == "bradley_terry":
            settings += [f"reward.{objective}.batch_size=16", f"reward.{objective}.save_steps=4"]
    return Recipe(CONFIGS / f"{name}.toml", settings)


def policy_sizes(config: RunConfig, *, steps: int) -> Iterator[str]:
    """So many steps of two rows for every training of every policy, two responses a prompt where a policy is
    reinforced, rounds of six prompts."""
    for name, policy in config.policies.items():
        if isinstance(policy, RlPolicy):
            yield f"policies.{name}.samples_per_prompt=2"
        for part, training in policy.trainings.items():
            sizes = {"steps": steps, "batch_size": 2, "accumulation": 1, "save_steps": 2}
            if "prompts" in type(training).model_fields:
                sizes["prompts"] = 6
            yield from (f"policies.{name}.{part}.{key}={value}" for key, value in sizes.items())


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
    "bundle.golden_prompts=4",
    "report.sweep_prompts=2",
    "report.utility_prompts=2",
    "report.grid_step=0.5",
    "report.replicates=100",
]
"""What makes a recipe small. The same for all of them."""
