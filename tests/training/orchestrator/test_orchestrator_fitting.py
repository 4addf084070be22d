"""A head on a frozen encoder: only the head learns, and the model is the head on the vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from head_rows import fit_rows
from orchestrator_world import TRAIN, VALIDATION, read_curve, read_validation, train, validation_losses
from preforch_training.embeddings.vectors import EncoderSettings, TextVectors
from preforch_training.orchestrator.fitting import Fitted, fit_frozen
from preforch_training.orchestrator.prediction import serve
from small_world import NAMES, make_config
from transformers import AutoModel


def frozen(encoder: Path, folder: Path, **options: Any) -> Fitted:
    settings = {"encoder": str(encoder), "train_encoder": False, **options}
    folder.mkdir(exist_ok=True)
    config = make_config(folder, orchestrator=settings)
    return fit_frozen(config.orchestrator, NAMES, TRAIN, VALIDATION, folder=folder, cache=folder / "cache")


def test_a_frozen_encoder_keeps_its_weights_and_only_the_head_learns(encoder: Path, tmp_path: Path) -> None:
    original = AutoModel.from_pretrained(encoder).state_dict()
    fitted = frozen(encoder, tmp_path)
    assert all(torch.equal(original[key], value) for key, value in fitted.model.encoder.state_dict().items())
    np.testing.assert_allclose(read_validation(fitted.model, encoder), VALIDATION.labels_NK, atol=0.1)
    trained, _ = train(encoder, tmp_path / "trained", epochs=1)
    assert not all(torch.equal(original[key], value) for key, value in trained.encoder.state_dict().items())


def test_a_frozen_orchestrator_tells_the_losses_of_every_penalty(encoder: Path, tmp_path: Path) -> None:
    fitted = frozen(encoder, tmp_path, penalties=[0.1, 1.0])
    curve = read_curve(tmp_path)
    assert [entry["penalty"] for entry in curve] == [1.0, 0.1]
    assert fitted.numbers["validation_loss"] == min(validation_losses(curve))
    best = min(curve, key=lambda entry: entry["eval_loss"])
    assert fitted.numbers == {"validation_loss": best["eval_loss"], "penalty": best["penalty"]}


def test_the_model_of_a_frozen_orchestrator_is_its_head_on_the_vectors(encoder: Path, tmp_path: Path) -> None:
    fitted = frozen(encoder, tmp_path, loss="reverse")
    vectors = TextVectors(EncoderSettings(str(encoder), "mean", 24), tmp_path / "cache")
    texts = sorted(set(TRAIN.texts))
    head = fit_rows(
        vectors(TRAIN.texts),
        TRAIN.labels_NK,
        (vectors(VALIDATION.texts), VALIDATION.labels_NK),
        loss="reverse",
        tau=1.0,
    )
    found = serve(fitted.model, fitted.tokenizer, texts).weights_NK
    np.testing.assert_allclose(found, head.weights(vectors(texts)), atol=1e-4)
