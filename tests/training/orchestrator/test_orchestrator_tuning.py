"""LoRA, accumulation and checkpointing of f, and encoders in half precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from orchestrator_world import largest_difference, read_validation, train, validation_losses
from preforch_training.orchestrator.fitting import new_model
from pydantic import ValidationError
from small_world import NAMES, make_config
from transformers import AutoModel, AutoTokenizer


def test_lora_learns_the_rule_and_moves_its_targets_and_the_head_alone(encoder: Path, tmp_path: Path) -> None:
    before = AutoModel.from_pretrained(encoder).state_dict()
    lora: dict[str, Any] = {"lora_rank": 4, "lora_alpha": 16, "lora_targets": ["query", "value"]}
    model, curve = train(encoder, tmp_path, epochs=4, **lora)
    assert validation_losses(curve)[-1] < validation_losses(curve)[0]
    np.testing.assert_array_equal(read_validation(model, encoder).argmax(axis=1), [0, 1])
    after = model.encoder.state_dict()
    assert set(after) == set(before), "adapters were not merged"
    moved = {name.split(".")[-2] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"query", "value"}
    assert model.head.weight.abs().max() > 0


def test_accumulated_batches_learn_what_one_of_their_size_does(encoder: Path, tmp_path: Path) -> None:
    # Without dropout, which draws anew for every batch.
    sure = AutoModel.from_pretrained(encoder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    sure.save_pretrained(tmp_path / "sure")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "sure")
    options: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3}
    whole, _ = train(tmp_path / "sure", tmp_path / "whole", **options, batch_size=32)
    parts, _ = train(tmp_path / "sure", tmp_path / "parts", **options, batch_size=8, accumulation=4)
    other, _ = train(tmp_path / "sure", tmp_path / "other", **options, batch_size=8)
    assert largest_difference(whole, parts) < 1e-4 < largest_difference(whole, other)


def test_checkpointing_of_activations_changes_memory_alone(encoder: Path, tmp_path: Path) -> None:
    plain, _ = train(encoder, tmp_path / "plain", epochs=1)
    saving, _ = train(encoder, tmp_path / "saving", epochs=1, gradient_checkpointing=True)
    # transformers 5.24 has a new name for it.
    new, old = "is_activation_checkpointing", "is_gradient_checkpointing"
    assert getattr(saving.encoder, new if hasattr(saving.encoder, new) else old)
    assert largest_difference(plain, saving) < 1e-6


def test_an_encoder_in_half_precision_is_trained_in_32_bits(encoder: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(encoder).half().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path)
    config = make_config(tmp_path, orchestrator={"encoder": str(tmp_path)}).orchestrator
    model, _ = new_model(config, NAMES)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_lora_on_an_encoder_that_is_not_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="lora_rank is 4, but train_encoder = false trains no encoder"):
        make_config(tmp_path, orchestrator={"lora_rank": 4, "train_encoder": False})
