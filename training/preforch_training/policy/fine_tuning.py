"""Supervised fine-tuning of a policy on token rows, by TRL; a killed training continues from its last checkpoint.

In:  a policy folder, rows of prompt and response token ids, settings, and a work folder that survives a kill.
Out: the trained model with LoRA merged, and the metrics of the training; `metrics.jsonl` and TensorBoard files.

Loss on the response and its end token only [RiC]. Rows are token ids, so nothing is decoded and encoded again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from preforch_models.context import context_tokens
from preforch_models.objectives import Record
from pydantic import Field
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
)

from preforch_training.hf_trainer import run_trainer
from preforch_training.policy.base_model import END, START, PolicyTokenizer


class SftSettings(Record):
    """One fine-tuning: how long, how fast, and which parameters."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate; cosine decay to a tenth."""
    batch_size: int = Field(ge=1)
    """Rows a step and device."""
    accumulation: int = Field(default=1, ge=1)
    """Batches a step."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    """AdamW's second decay; 0.95 suits short trainings from scratch."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of LoRA on all linear layers; 0 trains every parameter."""
    lora_alpha: float = Field(default=128, gt=0)
    """LoRA's scale is lora_alpha / lora_rank."""
    save_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints: what a kill can cost."""
    gradient_checkpointing: bool = False
    """Trade time for memory."""


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
    policy: Path, rows: Sequence[TokenRow], settings: SftSettings, *, seed: int, folder: Path, work: Path
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Train, write metrics into `folder`, return the model (LoRA merged) and the last metrics. Raises TrainingError."""
    # TRL takes seconds to import; reading a config must not wait for it.
    from datasets import Dataset
    from trl import SFTTrainer

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


def _arguments(settings: SftSettings, work: Path, *, seed: int) -> Any:
    from trl import SFTConfig

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


def _lora(reader: PolicyTokenizer, settings: SftSettings, *, tied: bool) -> Any:
    """LoRA on all linear layers, and the rows of the tokens that the template writes, which no adapter would move."""
    from peft import LoraConfig

    tokens = [*context_tokens(reader.context_format), START, END]
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
