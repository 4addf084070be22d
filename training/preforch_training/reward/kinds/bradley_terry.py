"""Reward kind `bradley_terry`: a sequence classifier fine-tuned by TRL's RewardTrainer (paper, Eq. 2).

In:  pairs of one objective. Out: a checkpoint with its tokenizer; a killed training continues from its last
     one.

Pairs are tokenised here, because TRL drops pairs over the maximal length and this project truncates them, and
because the same tokens must be read when the model scores.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
from trl import RewardConfig, RewardTrainer

from preforch_training.distributed.group import rank, together
from preforch_training.distributed.training import RankTrainer, rank_options
from preforch_training.embeddings.batching import token_limit
from preforch_training.embeddings.vectors import encoder_path
from preforch_training.records import PreferencePair, Prompt
from preforch_training.reward.config import BradleyTerryReward, TextReading
from preforch_training.reward.fit_task import FitTask
from preforch_training.reward.kinds.classifier import score_classifier
from preforch_training.reward.texts import tokens_of
from preforch_training.tuning.hf_trainer import run_trainer
from preforch_training.tuning.padding import make_room, separate_pad
from preforch_training.tuning.tuned_model import (
    device_arguments,
    finished,
    loading_dtype,
    lora_config,
    memory_arguments,
    new_modules,
    stored_dtype,
    train_in_32_bits,
)


class _Trainer(RankTrainer, RewardTrainer):  # type: ignore[misc]  # TRL is partly untyped
    """TRL's trainer, on any number of ranks."""


def fit(config: BradleyTerryReward, task: FitTask) -> None:
    """Train and save one checkpoint with its tokenizer, on all ranks. `task.work` keeps trainer checkpoints
    across kills."""
    together(_fit, config, task)


def _fit(config: BradleyTerryReward, task: FitTask) -> None:
    # The head starts at random, before the trainer sets its seed.
    set_seed(task.seed)
    base = encoder_path(config.base)
    tokenizer = AutoTokenizer.from_pretrained(base, revision=config.revision, padding_side="right")
    model = AutoModelForSequenceClassification.from_pretrained(
        base, revision=config.revision, num_labels=1, dtype=loading_dtype(config)
    )
    separate_pad(tokenizer, end=tokenizer.eos_token)
    make_room(model, tokenizer)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    rows = pair_tokens(
        tokenizer, config, task.prompts, task.pairs, token_limit(tokenizer, model.config, config.max_tokens)
    )
    arguments = RewardConfig(
        output_dir=str(task.work),
        num_train_epochs=config.epochs,
        **rank_options(config.batch_size),
        learning_rate=config.learning_rate,
        center_rewards_coefficient=config.center_coefficient,
        max_length=None,
        save_steps=config.save_steps,
        # Two, so that a kill in the middle of a save leaves a whole one.
        save_total_limit=2,
        logging_steps=10,
        report_to="none",
        disable_tqdm=False,
        seed=task.seed,
        data_seed=task.seed,
        **memory_arguments(config),
        **device_arguments(),
    )
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(config, task="SEQ_CLS", whole=new_modules(model)),
    )
    train_in_32_bits(trainer.model)
    run_trainer(trainer, work=task.work, folder=task.target, tracking=task.tracking)
    if rank() == 0:
        # Not trainer.save_model, which adds a pickle of its arguments.
        stored = stored_dtype(base, config.saved_dtype, revision=config.revision)
        finished(trainer.model, stored).save_pretrained(task.target)
        tokenizer.save_pretrained(task.target)


def score(
    config: BradleyTerryReward, folder: Path, cache: Path, prompts: Sequence[Prompt], responses: Sequence[str]
) -> np.ndarray:
    """Logits of the trained classifier, (N,)."""
    del cache
    return score_classifier(
        str(folder), config, prompts, responses, batch_size=config.batch_size, segment_ids=False
    )


def pair_tokens(
    tokenizer: Any,
    reading: TextReading,
    prompts: Mapping[str, Prompt],
    pairs: Sequence[PreferencePair],
    max_tokens: int,
) -> list[dict[str, list[int]]]:
    """Token ids of both sides of pairs. Without segment ids, which TRL does not hand on."""

    asked = [prompts[pair.prompt_id] for pair in pairs]
    sides = [[pair.chosen for pair in pairs], [pair.rejected for pair in pairs]]
    chosen, rejected = (tokens_of(reading, tokenizer, asked, side, max_tokens) for side in sides)
    return [
        {"chosen_ids": better, "rejected_ids": worse} for better, worse in zip(chosen, rejected, strict=True)
    ]
