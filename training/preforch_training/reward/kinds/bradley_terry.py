"""Reward kind `bradley_terry`: a sequence classifier fine-tuned by TRL's RewardTrainer (paper, Eq. 2).

In:  pairs of one objective. Out: a checkpoint with its tokenizer; a killed training continues from its last
     one.

Pairs are tokenised here, because TRL drops pairs over the maximal length and this project truncates them, and
because the same tokens must be read when the model scores.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
from trl import RewardConfig, RewardTrainer

from preforch_training.distributed.group import rank, together
from preforch_training.distributed.training import RankTrainer, rank_options
from preforch_training.embeddings.vectors import encoder_path
from preforch_training.hf_trainer import run_trainer
from preforch_training.records import PreferencePair, Prompt
from preforch_training.reward.config import BradleyTerryReward
from preforch_training.reward.fit_task import FitTask
from preforch_training.reward.kinds.classifier import classifier_text, score_classifier


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
    tokenizer = AutoTokenizer.from_pretrained(base, revision=config.revision, truncation_side="left")
    model = AutoModelForSequenceClassification.from_pretrained(
        base, revision=config.revision, num_labels=1, dtype="float32"
    )
    if tokenizer.pad_token is None:
        raise ValueError(
            f"tokenizer of {config.base!r} has no pad token; without one, scores depend on padding"
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = [
        pair_tokens(tokenizer, task.prompts[pair.prompt_id], pair, config.max_tokens) for pair in task.pairs
    ]
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
        bf16=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = _Trainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    run_trainer(trainer, work=task.work, folder=task.target, tracking=task.tracking)
    if rank() == 0:
        # Not trainer.save_model, which adds a pickle of its arguments.
        trainer.model.save_pretrained(task.target)
        tokenizer.save_pretrained(task.target)


def score(
    config: BradleyTerryReward, folder: Path, cache: Path, prompts: Sequence[Prompt], responses: Sequence[str]
) -> np.ndarray:
    """Logits of the trained classifier, (N,)."""
    del cache
    return score_classifier(
        str(folder), prompts, responses, max_tokens=config.max_tokens, batch_size=config.batch_size
    )


def pair_tokens(
    tokenizer: Any, prompt: Prompt, pair: PreferencePair, max_tokens: int
) -> dict[str, list[int]]:
    """Token ids of both sides, cut at the beginning, where the oldest turns are."""
    sides = {}
    for side in ("chosen", "rejected"):
        text = classifier_text(tokenizer, prompt, getattr(pair, side))
        sides[f"{side}_ids"] = tokenizer(
            text, truncation=True, max_length=max_tokens, add_special_tokens=tokenizer.chat_template is None
        )["input_ids"]
    return sides
