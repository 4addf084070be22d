"""Supervised fine-tuning of a policy on token rows, by TRL. A killed one continues from its last checkpoint.

In:  a policy folder, rows of prompt and response token ids, settings, a work folder that survives a kill.
Out: the trained model with LoRA merged, the metrics of the training; `metrics.jsonl` and TensorBoard files.

Loss on the response and its end token only [RiC]. Rows are token ids: nothing is decoded and encoded again.

The loss of a step is a sum over its rows i and their label tokens t, divided by the step's number N of them:

    L = -1/N sum_i sum_t log p(y_it | x_i, y_i,<t)

TRL takes N from the whole step, all its batches and processes. So L and its gradient depend on which rows a
step holds, not on which of them share a batch: rows of like length do, which takes the least padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.data_loader import DataLoaderShard, SeedableRandomSampler
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl import SFTConfig, SFTTrainer

from preforch_training.distributed.group import together
from preforch_training.distributed.training import FilledOrder, RankTrainer, rank_options
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.tuning.hf_trainer import run_trainer
from preforch_training.tuning.tracking import Tracking
from preforch_training.tuning.tuned_model import (
    device_arguments,
    embedding_rows,
    finished,
    loading_dtype,
    lora_config,
    memory_arguments,
    show_bias,
    stored_dtype,
    train_in_32_bits,
)


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


class TrainingOrder(Sampler[int]):
    """Row numbers of an epoch as a random sampler draws them, but within each step the shortest row first.

    A step holds what it would hold unsorted; the last one of an epoch holds the rows that are left.
    """

    def __init__(
        self, random: FilledOrder | SeedableRandomSampler, lengths: Sequence[int], *, rows_per_step: int
    ) -> None:
        self._random = random
        self._lengths = lengths
        self._rows_per_step = rows_per_step

    def set_epoch(self, epoch: int) -> None:
        """Draw by seed and epoch alone, so that a continued training finds its place."""
        self._random.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._random)

    def __iter__(self) -> Iterator[int]:
        rows = list(self._random)
        for start in range(0, len(rows), self._rows_per_step):
            yield from sorted(rows[start : start + self._rows_per_step], key=self._lengths.__getitem__)


class _Trainer(RankTrainer, SFTTrainer):  # type: ignore[misc]  # TRL is partly untyped
    """TRL's trainer, which reads its rows in training order."""

    def get_train_dataloader(self) -> DataLoaderShard:
        loader: DataLoaderShard = super().get_train_dataloader()
        # Process p of n reads batches p, p + n, p + 2n, ... of this order, `accumulation` of them a step:
        # a step holds n times the rows, and all processes are at rows of like length at any time.
        batches_per_step = self.args.gradient_accumulation_steps * self.args.world_size
        if batches_per_step == 1:
            return loader  # one batch is padded to its longest row, whatever its order
        order = TrainingOrder(
            loader.get_sampler(),
            [len(ids) for ids in self.train_dataset["input_ids"]],
            rows_per_step=batches_per_step * self.args.per_device_train_batch_size,
        )
        loader.set_sampler(order)
        return loader


def fine_tune(
    policy: Path,
    rows: Sequence[TokenRow],
    settings: FineTuning,
    *,
    seed: int,
    folder: Path,
    work: Path,
    tracking: Tracking = Tracking(),
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Train on all ranks, write metrics into `folder`. The model (LoRA merged) and last metrics. Raises
    TrainingError."""
    return together(
        _fine_tune, policy, rows, settings, seed=seed, folder=folder, work=work, tracking=tracking
    )


def _fine_tune(
    policy: Path,
    rows: Sequence[TokenRow],
    settings: FineTuning,
    *,
    seed: int,
    folder: Path,
    work: Path,
    tracking: Tracking,
) -> tuple[PreTrainedModel, dict[str, float]]:
    reader = PolicyTokenizer(policy)
    model = AutoModelForCausalLM.from_pretrained(policy, use_safetensors=True, dtype=loading_dtype(settings))
    trainer = _Trainer(
        model=model,
        args=_arguments(settings, work, seed=seed),
        train_dataset=Dataset.from_list([_example(row, reader.end_id) for row in rows]),
        processing_class=reader.tokenizer,
        # No adapter would move the rows of the tokens that are new.
        peft_config=lora_config(
            settings, task="CAUSAL_LM", rows=embedding_rows(model, reader.template_ids())
        ),
    )
    if settings.lora_rank:
        show_bias(trainer.model)
    train_in_32_bits(trainer.model)
    history = run_trainer(trainer, work=work, folder=folder, tracking=tracking)
    trained = finished(trainer.model, stored_dtype(str(policy), settings.saved_dtype))
    return trained, _summary(history)


def _example(row: TokenRow, end_id: int) -> dict[str, list[int]]:
    response = [*row.response, end_id]
    return {"input_ids": [*row.prompt, *response], "labels": [-100] * len(row.prompt) + response}


def _arguments(settings: FineTuning, work: Path, *, seed: int) -> SFTConfig:
    return SFTConfig(
        output_dir=str(work),
        **rank_options(settings.batch_size),
        **schedule_arguments(settings, seed=seed),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
    )


def schedule_arguments(settings: FineTuning, *, seed: int) -> dict[str, Any]:
    """What every trainer of a policy is told: how long, how fast, when it saves and logs."""
    return {
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "adam_beta2": settings.adam_beta2,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        # Seeded by epoch; sampling by length draws from global randomness and loses its place at a restart.
        "train_sampling_strategy": "random",
        "seed": seed,
        "data_seed": seed,
        "save_steps": settings.save_steps,
        # Two, so that a kill in the middle of a save leaves a whole one.
        "save_total_limit": 2,
        "logging_steps": max(1, settings.steps // 100),
        # A NaN must be seen, not averaged away.
        "logging_nan_inf_filter": False,
        "dataloader_num_workers": 0,
        "report_to": "none",
        "disable_tqdm": False,
        **memory_arguments(settings),
        **device_arguments(),
    }


def _summary(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The last logged loss, and accuracy as TRL has it: the mean over batches, not over tokens."""
    losses = [entry for entry in history if "loss" in entry]
    return {
        "loss": losses[-1]["loss"],
        "token_accuracy": losses[-1].get("mean_token_accuracy", 0.0),
    }
