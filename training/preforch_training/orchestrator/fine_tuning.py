"""Fine-tuning of encoder and head by the Hugging Face Trainer (paper, Eq. 8).

In:  texts with labels. Out: `Fitted`; a killed training continues from its last checkpoint.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model
from preforch_models.orchestrator_model import OrchestratorModel
from torch import nn
from transformers import EarlyStoppingCallback, EvalPrediction, TrainingArguments, set_seed

from preforch_training.distributed.group import rank, together
from preforch_training.distributed.shares import check_batch_size
from preforch_training.distributed.training import RankTrainer, rank_options
from preforch_training.orchestrator.config import Config
from preforch_training.orchestrator.fitting import (
    TEXTS_AT_ONCE,
    Fitted,
    Targets,
    learned_scale,
    new_model,
)
from preforch_training.orchestrator.prediction import vectors_of
from preforch_training.orchestrator.targets import constant_gate, head_loss
from preforch_training.records import in_batches
from preforch_training.tuning.hf_trainer import run_trainer
from preforch_training.tuning.tracking import Tracking
from preforch_training.tuning.tuned_model import device_arguments, finished, lora_config, save_memory

_SCALE_LEARNING_RATE = 1e-2
"""Of log s, one number that the encoder's learning rate would never move."""


class WithLoss(nn.Module):
    """The orchestrator with its loss, as the Trainer takes it; a checkpoint also holds `log_scale`."""

    def __init__(self, model: OrchestratorModel, config: Config, *, log_scale: float) -> None:
        super().__init__()
        self.model, self._config = model, config
        # One number in one dimension: FSDP2 shards no other.
        self.log_scale = nn.Parameter(torch.tensor([log_scale]), requires_grad=config.loss == "bt_gate")
        # What FSDP2 shards one by one.
        self._no_split_modules = model.encoder._no_split_modules

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The mean loss; in evaluation the loss of each row, without the prior: early stopping goes by the
        likelihood."""
        log_BK = self.model(input_ids=input_ids, attention_mask=attention_mask)
        if self.training:
            return {"loss": self._loss(log_BK, labels, entropy_prior=self._config.entropy_prior)}
        rows = zip(torch.split(log_BK, 1), torch.split(labels, 1), strict=True)
        return {"losses": torch.stack([self._loss(*row, entropy_prior=0.0) for row in rows])}

    def _loss(self, log_BK: torch.Tensor, labels: torch.Tensor, *, entropy_prior: float) -> torch.Tensor:
        return head_loss(
            log_BK,
            labels,
            loss=self._config.loss,
            tau=self._config.training_tau,
            log_scale=self.log_scale,
            entropy_prior=entropy_prior,
        )


class OrchestratorTrainer(RankTrainer):
    """A Trainer that moves the scale at a rate of its own, and evaluates by row: of those that ranks read
    twice, to be even, each counts once."""

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """No loss of a batch; losses of rows, labels."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            return None, model(**inputs)["losses"], inputs["labels"]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The usual one, `log_scale` in a group of its own."""
        log_scale = self.model.log_scale
        rate = {"lr": _SCALE_LEARNING_RATE, "weight_decay": 0.0}
        trained = log_scale.requires_grad
        log_scale.requires_grad_(False)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if trained:
            optimizer.add_param_group({"params": [log_scale.requires_grad_()], **rate})
        return optimizer


def training_arguments(config: Config, folder: Path, *, seed: int) -> TrainingArguments:
    """AdamW with a short warm-up and cosine decay; a checkpoint and a validation loss per epoch."""
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        **rank_options(config.batch_size),
        per_device_eval_batch_size=check_batch_size(config.batch_size, name="batch_size"),
        # Upper layers that are not pooled, the pooler: an encoder has parameters that no loss depends on.
        ddp_find_unused_parameters=True,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=config.patience != "off",
        # Or else a continued training forgets how long it has been patient.
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=10,
        report_to="none",
        # Said out loud, because a quiet logging level would switch the bar off.
        disable_tqdm=False,
        label_names=["labels"],
        remove_unused_columns=False,
        seed=seed,
        data_seed=seed,
        dataloader_num_workers=0,
        gradient_accumulation_steps=config.accumulation,
        **device_arguments(),
    )


def mean_loss(found: EvalPrediction) -> dict[str, float]:
    """What early stopping and the best checkpoint go by: `eval_loss`, the mean over rows."""
    return {"loss": float(found.predictions.mean())}


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised texts with their labels."""

    def __init__(self, targets: Targets, tokenizer: Any, max_tokens: int) -> None:
        # As arrays: lists of integers take several times as much.
        self._ids = [
            np.array(ids, dtype=np.int32)
            for some in in_batches(targets.texts, TEXTS_AT_ONCE)
            for ids in tokenizer(some, truncation=True, max_length=max_tokens)["input_ids"]
        ]
        self._labels = torch.tensor(targets.labels_NK, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._ids[index].tolist(), "labels": self._labels[index]}


def fit(
    config: Config,
    names: Sequence[str],
    train: Targets,
    validation: Targets,
    *,
    folder: Path,
    work: Path,
    seed: int,
    tracking: Tracking = Tracking(),
) -> Fitted:
    """Train encoder and head on all ranks; continues from the last checkpoint in `work`."""
    # Texts themselves: what another rank sees of the disk is not known here.
    train, validation = (Targets(list(rows.texts), rows.labels_NK) for rows in (train, validation))
    return together(
        _fit, config, names, train, validation, folder=folder, work=work, seed=seed, tracking=tracking
    )


def _fit(
    config: Config,
    names: Sequence[str],
    train: Targets,
    validation: Targets,
    *,
    folder: Path,
    work: Path,
    seed: int,
    tracking: Tracking,
) -> Fitted:
    set_seed(seed)
    model, tokenizer = new_model(config, names)
    save_memory(model.encoder, config)
    adapters = lora_config(config, task=None)
    if adapters is not None:
        # The head is new and is trained whole.
        model.encoder = get_peft_model(model.encoder, adapters)
    # The scale of the best constant is where the scale of a head at zero belongs.
    start = constant_gate(train.labels_NK)[1] if config.loss == "bt_gate" else 0.0
    whole = WithLoss(model, config, log_scale=start)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        return {**batch, "labels": torch.stack([row["labels"] for row in rows])}

    trainer = OrchestratorTrainer(
        model=whole,
        args=training_arguments(config, work, seed=seed),
        train_dataset=Rows(train, tokenizer, config.max_tokens),
        eval_dataset=Rows(validation, tokenizer, config.max_tokens),
        data_collator=collate,
        compute_metrics=mean_loss,
        callbacks=[]
        if config.patience == "off"
        else [EarlyStoppingCallback(early_stopping_patience=config.patience)],
    )
    history = run_trainer(trainer, work=work, folder=folder, tracking=tracking)
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    kept = losses[-1] if config.patience == "off" else min(losses)
    scale = trainer.model.log_scale
    # On the other ranks of FSDP2 nothing is left of it.
    numbers = {"validation_loss": kept} | learned_scale(config, scale.item() if rank() == 0 else 0.0)
    if rank() == 0:
        model = trainer.model.model
        model.encoder = finished(model.encoder, torch.float32)
        model = model.to("cpu").eval()
    return Fitted(model, tokenizer, numbers, partial(vectors_of, model, tokenizer))
