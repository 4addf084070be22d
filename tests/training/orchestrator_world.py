"""The rule of the toy world as targets, and an orchestrator trained on it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import small_world
from preforch_models.orchestrator_model import OrchestratorModel
from preforch_training.orchestrator.fine_tuning import fit
from preforch_training.orchestrator.fitting import Targets
from preforch_training.orchestrator.prediction import serve
from small_world import NAMES, make_config
from transformers import AutoTokenizer

TRAIN = Targets(
    texts=small_world.questions()[:48] + small_world.questions()[-48:],
    labels_NK=np.array([[0.9, 0.1]] * 48 + [[0.2, 0.8]] * 48),
)
VALIDATION = Targets(
    texts=["joke about lamp", "danger near lamp"], labels_NK=np.array([[0.9, 0.1], [0.2, 0.8]])
)
# Training makes it worse and worse.
CONTRARY = Targets(texts=VALIDATION.texts, labels_NK=VALIDATION.labels_NK[::-1].copy())


def largest_difference(first: OrchestratorModel, second: OrchestratorModel) -> float:
    one, two = first.state_dict(), second.state_dict()
    return max(float((one[key] - two[key]).abs().max()) for key in one)


def train_on(
    encoder: Path, work: Path, train: Targets, validation: Targets, **options: Any
) -> tuple[OrchestratorModel, list[dict[str, float]]]:
    """Fit on the toy rule; a finished epoch leaves a checkpoint in `work`."""
    settings = {"encoder": str(encoder), "batch_size": 32, "learning_rate": 1e-2, **options}
    config = make_config(work, orchestrator=settings).orchestrator
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(config, NAMES, train, validation, folder=Path(folder), work=work, seed=3)
    curve = read_curve(work)
    losses = validation_losses(curve)
    assert fitted.numbers["validation_loss"] == (losses[-1] if config.patience == "off" else min(losses))
    return fitted.model, curve


def read_curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def train(
    encoder: Path, work: Path, *, validation: Targets = VALIDATION, **options: Any
) -> tuple[OrchestratorModel, list[dict[str, float]]]:
    return train_on(encoder, work, TRAIN, validation, **options)


def validation_losses(curve: list[dict[str, float]]) -> list[float]:
    return [entry["eval_loss"] for entry in curve if "eval_loss" in entry]


def read_validation(model: OrchestratorModel, encoder: Path) -> np.ndarray:
    return serve(model, AutoTokenizer.from_pretrained(encoder), VALIDATION.texts).weights_NK
