"""How an orchestrator is fine-tuned: its loss as a module, its optimiser, its training arguments.

In:  a model and the settings of the stage. Out: what the Hugging Face Trainer takes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from preforch_models.orchestrator_model import OrchestratorModel
from torch import nn
from transformers import Trainer, TrainingArguments

from preforch_training.orchestrator.targets import head_loss

if TYPE_CHECKING:
    from preforch_training.orchestrator.stage import Config

_SCALE_LEARNING_RATE = 1e-2
"""Of log s, one number that the encoder's learning rate would never move."""


class WithLoss(nn.Module):
    """The orchestrator with its loss, as the Trainer takes it; a checkpoint holds `log_scale` beside the model."""

    def __init__(self, model: OrchestratorModel, settings: "Config", *, log_scale: float) -> None:
        super().__init__()
        self.model, self._settings = model, settings
        self.log_scale = nn.Parameter(torch.tensor(log_scale), requires_grad=settings.loss == "bt_gate")

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The mean loss, without the prior in evaluation: early stopping goes by the likelihood."""
        loss = head_loss(
            self.model(input_ids=input_ids, attention_mask=attention_mask),
            labels,
            loss=self._settings.loss,
            tau=self._settings.tau,
            log_scale=self.log_scale,
            entropy_prior=self._settings.entropy_prior if self.training else 0.0,
        )
        return {"loss": loss}


class OrchestratorTrainer(Trainer):  # type: ignore[misc]  # transformers is partly untyped
    """A Trainer that moves the scale at a rate of its own."""

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


def training_arguments(settings: "Config", folder: Path, *, seed: int) -> TrainingArguments:
    """AdamW with a short warm-up and cosine decay; a checkpoint and a validation loss per epoch."""
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
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
        dataloader_pin_memory=torch.cuda.is_available(),
    )
