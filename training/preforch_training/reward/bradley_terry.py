"""Full fine-tuning of a Bradley-Terry sequence classifier by TRL's RewardTrainer; continues from its last checkpoint.

Pairs are tokenised here, because TRL drops pairs over the maximal length and this project truncates them, and because
the same tokens must be read when the model scores.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
from trl import RewardConfig, RewardTrainer

from preforch_training.embeddings.vectors import encoder_path
from preforch_training.hf_trainer import run_trainer
from preforch_training.records import PreferencePair, Prompt
from preforch_training.reward.scoring import BradleyTerryReward, classifier_text


def train_classifier(
    target: Path,
    work: Path,
    settings: BradleyTerryReward,
    prompts: dict[str, Prompt],
    pairs: list[PreferencePair],
    *,
    seed: int,
) -> None:
    """Train and save one checkpoint with its tokenizer. `work` keeps trainer checkpoints across kills."""
    # The head starts at random, before the trainer sets its seed.
    set_seed(seed)
    base = encoder_path(settings.base)
    tokenizer = AutoTokenizer.from_pretrained(base, revision=settings.revision, truncation_side="left")
    model = AutoModelForSequenceClassification.from_pretrained(
        base, revision=settings.revision, num_labels=1, dtype="float32"
    )
    if tokenizer.pad_token is None:
        raise ValueError(
            f"tokenizer of {settings.base!r} has no pad token; without one, scores depend on padding"
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = [pair_tokens(tokenizer, prompts[pair.prompt_id], pair, settings.max_tokens) for pair in pairs]
    arguments = RewardConfig(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        center_rewards_coefficient=settings.center_coefficient,
        max_length=None,
        save_steps=settings.save_steps,
        # Two, so that a kill in the middle of a save leaves a whole one.
        save_total_limit=2,
        logging_steps=10,
        report_to="none",
        disable_tqdm=False,
        seed=seed,
        data_seed=seed,
        bf16=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = RewardTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    run_trainer(trainer, work=work, folder=target)
    # Not trainer.save_model, which adds a pickle of its arguments.
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


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
