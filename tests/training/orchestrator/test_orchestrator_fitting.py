"""A head on a frozen encoder: only the head learns, and the model is the head on the vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from head_rows import fit_rows
from orchestrator_world import TRAIN, VALIDATION, read_curve, read_validation, train, validation_losses
from preforch_training.embeddings import stored
from preforch_training.embeddings.vectors import EncoderSettings, TextVectors
from preforch_training.orchestrator import fitting
from preforch_training.orchestrator.fitting import Distinct, Fitted, fit_frozen
from preforch_training.orchestrator.prediction import serve
from small_world import NAMES, make_config
from transformers import AutoModel


def frozen(encoder: Path, folder: Path, **options: Any) -> Fitted:
    settings = {"encoder": str(encoder), "train_encoder": False, **options}
    folder.mkdir(exist_ok=True)
    config = make_config(folder, orchestrator=settings)
    return fit_frozen(
        config.orchestrator, NAMES, TRAIN, VALIDATION, folder=folder, work=folder, cache=folder / "cache"
    )


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


def test_few_vectors_are_in_memory_at_once_and_the_head_is_the_same(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = frozen(encoder, tmp_path / "whole", loss="forward")
    asked: list[int] = []
    read = TextVectors.__call__

    def counted(vectors: TextVectors, texts: Sequence[str]) -> np.ndarray:
        asked.append(len(texts))
        return read(vectors, texts)

    monkeypatch.setattr(TextVectors, "__call__", counted)
    monkeypatch.setattr(fitting, "TEXTS_AT_ONCE", 7)
    monkeypatch.setattr(stored, "BLOCK_NUMBERS", 11 * 32)
    found = frozen(encoder, tmp_path / "parts", loss="forward")
    assert sum(asked) == len(set(TRAIN.texts)) + len(set(VALIDATION.texts))
    assert max(asked) == 7
    torch.testing.assert_close(found.model.head.weight, whole.model.head.weight, atol=1e-3, rtol=0)
    assert found.numbers["validation_loss"] == pytest.approx(whole.numbers["validation_loss"], abs=1e-4)
    # Nothing is left of what was written on the way.
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }


def test_distinct_texts_come_in_order_of_appearance() -> None:
    texts = ["b", "a", "b", "c", "a", "c"]
    found = Distinct(texts)
    assert list(found.of(texts)) == ["b", "a", "c"]
    assert found.which_N.tolist() == [0, 1, 0, 2, 1, 2]
