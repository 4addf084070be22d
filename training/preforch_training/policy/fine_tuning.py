"""Supervised fine-tuning of a policy on token rows, by TRL; a killed training continues from its last checkpoint.

In:  a policy folder, rows of prompt and response token ids, settings, and a work folder that survives a kill.
Out: the trained model with LoRA merged, and the metrics of the training; `metrics.jsonl` and TensorBoard files.

Loss on the response and its end token only [RiC]. Rows are token ids, so nothing is decoded and encoded again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from preforch_models.context import context_tokens
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
)
from trl import SFTConfig, SFTTrainer

from preforch_training.hf_trainer import run_trainer
from preforch_training.policy.base_model import END, START
from preforch_training.policy.config import FineTuning
from preforch_training.policy.tokenizer import PolicyTokenizer


@dataclass(frozen=True)
class TokenRow:
    """One training example: prompt ids, and response ids without the end token."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


def fit_rows(rows: Sequence[TokenRow], *, max_tokens: int) -> list[TokenRow]:
    """Rows that fit with their end token. Raises ValueError when none does."""
    fitting = [row for row in rows if len(row.prompt) + len(row.response) < max_tokens]
    if not fitting:
        raise ValueError(
            f"none of {len(rows)} training rows fits into {max_tokens} tokens; raise max_model_len"
        )
    return fitting


def fine_tune(
    policy: Path, rows: Sequence[TokenRow], settings: FineTuning, *, seed: int, folder: Path, work: Path
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Train, write metrics into `folder`, return the model (LoRA merged) and the last metrics. Raises TrainingError."""
    reader = PolicyTokenizer(policy)
    model = AutoModelForCausalLM.from_pretrained(policy, use_safetensors=True, dtype="auto")
    trainer = SFTTrainer(
        model=model,
        args=_arguments(settings, work, seed=seed),
        train_dataset=Dataset.from_list([_example(row, reader.end_id) for row in rows]),
        processing_class=reader.tokenizer,
        peft_config=_lora(reader, settings, tied=model.config.tie_word_embeddings)
        if settings.lora_rank
        else None,
    )
    if settings.lora_rank and model.config.tie_word_embeddings:
        # PEFT wraps a tied head and hides its bias, which TRL's loss asks for; no language model here has one.
        trainer.model.get_output_embeddings().bias = None
    history = run_trainer(trainer, work=work, folder=folder)
    trained = trainer.model.merge_and_unload() if settings.lora_rank else trainer.model
    return trained, _summary(history)


def _example(row: TokenRow, end_id: int) -> dict[str, list[int]]:
    response = [*row.response, end_id]
    return {"input_ids": [*row.prompt, *response], "labels": [-100] * len(row.prompt) + response}


def _arguments(settings: FineTuning, work: Path, *, seed: int) -> SFTConfig:
    return SFTConfig(
        output_dir=str(work),
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.adam_beta2,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        # Seeded by epoch; sampling by length draws from global randomness and loses its place at a restart.
        train_sampling_strategy="random",
        seed=seed,
        data_seed=seed,
        save_steps=settings.save_steps,
        # Two, so that a kill in the middle of a save leaves a whole one.
        save_total_limit=2,
        logging_steps=max(1, settings.steps // 100),
        # A NaN must be seen, not averaged away.
        logging_nan_inf_filter=False,
        gradient_checkpointing=settings.gradient_checkpointing,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        report_to="none",
        disable_tqdm=False,
    )


def _lora(reader: PolicyTokenizer, settings: FineTuning, *, tied: bool) -> LoraConfig:
    """LoRA on all linear layers, and the rows of the tokens that the template writes, which no adapter would move."""
    context_format = reader.card.context_format
    tokens = [*(context_tokens(context_format) if context_format else ()), START, END]
    ids = [reader.tokenizer.convert_tokens_to_ids(token) for token in tokens]
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules="all-linear",
        trainable_token_indices={"embed_tokens": ids} if tied else {"embed_tokens": ids, "lm_head": ids},
        task_type="CAUSAL_LM",
    )


def _summary(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The last logged loss and accuracy."""
    losses = [entry for entry in history if "loss" in entry]
    return {
        "loss": losses[-1]["loss"],
        "token_accuracy": losses[-1].get("mean_token_accuracy", 0.0),
    }
