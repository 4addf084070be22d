"""Fine-tuning of f: it learns, stops in time, and continues where it was stopped."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from orchestrator_world import (
    CONTRARY,
    TRAIN,
    VALIDATION,
    largest_difference,
    read_validation,
    train,
    train_on,
    validation_losses,
)
from preforch_training.orchestrator.fine_tuning import fit
from preforch_training.orchestrator.fitting import Targets
from preforch_training.orchestrator.targets import constant_gate, softmax
from safetensors.torch import load_file
from small_world import NAMES, make_config


def test_a_training_that_was_stopped_after_an_epoch_ends_with_the_same_weights(
    encoder: Path, tmp_path: Path
) -> None:
    whole, curve = train(encoder, tmp_path, epochs=3)
    # What a kill in the third epoch leaves behind.
    shutil.rmtree(max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])))
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1
    continued, continued_curve = train(encoder, tmp_path, epochs=3)
    assert largest_difference(whole, continued) < 1e-5
    np.testing.assert_allclose(validation_losses(continued_curve), validation_losses(curve), atol=1e-5)
    # Nobody measures the same seconds four times: the first epochs were remembered, not trained again.
    seconds, again = ([e["eval_runtime"] for e in c if "eval_loss" in e] for c in (curve, continued_curve))
    assert seconds[:2] == again[:2]


def test_early_stopping_keeps_the_best_epoch(encoder: Path, tmp_path: Path) -> None:
    once, first = train(encoder, tmp_path / "once", validation=CONTRARY, epochs=6, patience=1)
    losses = validation_losses(first)
    assert len(losses) == 2
    assert losses[0] < losses[1]
    patient, second = train(encoder, tmp_path / "patient", validation=CONTRARY, epochs=6, patience=2)
    assert len(validation_losses(second)) == 3
    assert largest_difference(once, patient) < 1e-6


def test_without_early_stopping_all_epochs_are_trained_and_the_last_is_kept(
    encoder: Path, tmp_path: Path
) -> None:
    """Preset `paper`; the best epoch is the first."""
    last, curve = train(encoder, tmp_path / "off", validation=CONTRARY, epochs=4, patience="off")
    losses = validation_losses(curve)
    assert len(losses) == 4
    assert losses[-1] > losses[0]
    best, _ = train(encoder, tmp_path / "patient", validation=CONTRARY, epochs=4, patience=4)
    assert largest_difference(last, best) > 1e-3
    f_NK, labels_NK = read_validation(last, encoder), CONTRARY.labels_NK
    of_kept = float((labels_NK * (np.log(labels_NK) - np.log(f_NK))).sum(axis=1).mean())
    assert of_kept == pytest.approx(losses[-1], abs=1e-4)


def test_a_stopped_training_remembers_how_long_it_was_patient(encoder: Path, tmp_path: Path) -> None:
    train(encoder, tmp_path, validation=CONTRARY, epochs=6, patience=1)
    # One bad epoch seen: the state in which a kill leaves a training of patience 2.
    last = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
    state["stateful_callbacks"]["EarlyStoppingCallback"]["args"]["early_stopping_patience"] = 2
    state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"] = False
    (last / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    _, curve = train(encoder, tmp_path, validation=CONTRARY, epochs=6, patience=2)
    assert len(validation_losses(curve)) == 3


def test_a_training_that_was_killed_after_it_had_stopped_early_is_only_saved(
    encoder: Path, tmp_path: Path
) -> None:
    whole, curve = train(encoder, tmp_path, validation=CONTRARY, epochs=3, patience=1)
    continued, again = train(encoder, tmp_path, validation=CONTRARY, epochs=3, patience=1)
    assert largest_difference(whole, continued) == 0
    steps, seen = ([e for e in c if "train_runtime" not in e] for c in (curve, again))
    assert seen == steps
    assert again[-1]["train_loss"] == 0, "it trained"


def test_the_target_losses_lead_to_the_targets_where_they_can_be_met(encoder: Path, tmp_path: Path) -> None:
    for loss in ("forward", "reverse"):
        model, curve = train(encoder, tmp_path / loss, loss=loss, epochs=3)
        assert validation_losses(curve)[-1] < 0.05
        assert not model.training


def test_regress_leads_to_the_softmax_of_the_values(encoder: Path, tmp_path: Path) -> None:
    train_values, held_values = (np.log(t.labels_NK) * [1.0, 2.0] + 5 for t in (TRAIN, VALIDATION))
    rows, held = Targets(TRAIN.texts, train_values), Targets(VALIDATION.texts, held_values)
    model, _ = train_on(encoder, tmp_path, rows, held, loss="regress", tau=2.0, epochs=8)
    np.testing.assert_allclose(read_validation(model, encoder), softmax(held_values, 2.0), atol=0.1)


def gate_rows(texts: Sequence[str], seed: int) -> Targets:
    """Pairs won with the log-odds 4 (w.margin), w = (0.9, 0.1) for jokes and (0.2, 0.8) for dangers."""
    rng = np.random.default_rng(seed)
    true = np.where([[text.startswith("joke")] for text in texts], [[0.9, 0.1]], [[0.2, 0.8]])
    margins = 2 * rng.normal(size=true.shape)
    won = (4 * (true * margins).sum(axis=1) + rng.logistic(size=len(texts))) > 0
    return Targets(texts, np.where(won[:, None], margins, -margins))


def test_bt_gate_leads_to_the_weights_that_the_choices_were_made_with(encoder: Path, tmp_path: Path) -> None:
    rows, held = gate_rows(list(TRAIN.texts) * 6, 0), gate_rows(list(VALIDATION.texts) * 60, 1)
    model, _ = train_on(encoder, tmp_path, rows, held, loss="bt_gate", epochs=4)
    np.testing.assert_allclose(read_validation(model, encoder), [[0.9, 0.1], [0.2, 0.8]], atol=0.15)


def test_the_scale_of_bt_gate_is_learned_and_survives_a_stop(encoder: Path, tmp_path: Path) -> None:
    rows, held = gate_rows(TRAIN.texts, 0), gate_rows(list(VALIDATION.texts) * 20, 1)
    config = make_config(
        tmp_path,
        orchestrator={
            "encoder": str(encoder),
            "loss": "bt_gate",
            "epochs": 3,
            "batch_size": 32,
            "learning_rate": 1e-3,
        },
    ).orchestrator

    def scale(work: Path, target: Path) -> float:
        return fit(config, NAMES, rows, held, folder=target, work=work, seed=3).numbers["scale"]

    whole = scale(tmp_path / "whole", tmp_path / "1")
    last = max((tmp_path / "whole").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    saved = [
        load_file(path / "model.safetensors")["log_scale"]
        for path in (tmp_path / "whole").glob("checkpoint-*")
    ]
    assert all(abs(float(value) - constant_gate(rows.labels_NK)[1]) > 1e-3 for value in saved)
    shutil.rmtree(last)
    assert scale(tmp_path / "whole", tmp_path / "2") == pytest.approx(whole, abs=1e-6)


def test_curves_go_to_tensorboard(encoder: Path, tmp_path: Path) -> None:
    train(encoder, tmp_path, epochs=1)
    assert list(tmp_path.rglob("events.out.tfevents.*"))
