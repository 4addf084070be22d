"""Stage `orchestrator`: it learns the rule, continues where it was stopped, and reads prompts one by one."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
import torch
from preforch_models.manifest import verify
from preforch_models.orchestrator_model import OrchestratorModel
from preforch_training import data, orchestrator, reward, scores
from preforch_training.config import RunConfig
from preforch_training.orchestrator import Targets, fit, read_targets
from preforch_training.prediction import predict_weights
from preforch_training.records import ScoredResponse
from preforch_training.run import Run
from preforch_training.score_table import read_calibration, read_scores, write_scores
from preforch_training.targets import best_constant
from small_world import NAMES, make_config, make_run
from transformers import AutoModel

TRAIN = Targets(
    texts=small_world.questions()[:48] + small_world.questions()[-48:],
    weights_NK=np.array([[0.9, 0.1]] * 48 + [[0.2, 0.8]] * 48),
)
VALIDATION = Targets(texts=["joke about lamp", "danger near lamp"], weights_NK=np.array([[0.9, 0.1], [0.2, 0.8]]))
# Training makes it worse and worse.
CONTRARY = Targets(texts=VALIDATION.texts, weights_NK=VALIDATION.weights_NK[::-1].copy())


def largest_difference(first: OrchestratorModel, second: OrchestratorModel) -> float:
    one, two = first.state_dict(), second.state_dict()
    return max(float((one[key] - two[key]).abs().max()) for key in one)


def train(
    encoder: Path, work: Path, *, validation: Targets = VALIDATION, **options: Any
) -> tuple[OrchestratorModel, list[dict[str, float]]]:
    """Fit on the toy rule; a finished epoch leaves a checkpoint in `work`."""
    settings = {"encoder": str(encoder), "batch_size": 32, "learning_rate": 1e-2, **options}
    config = make_config(work, orchestrator=settings)
    with tempfile.TemporaryDirectory() as folder:
        model, _, best = fit(config, TRAIN, validation, folder=Path(folder), work=work, seed=3)
    curve = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    assert best == min(validation_losses(curve))
    return model, curve


def validation_losses(curve: list[dict[str, float]]) -> list[float]:
    return [entry["eval_loss"] for entry in curve if "eval_loss" in entry]


# A whole stage.


def test_the_orchestrator_learns_which_prompts_want_what(toy_run: tuple[Run, RunConfig]) -> None:
    run, _ = toy_run
    jokes, dangers = ["joke about garden", "joke about dog two"], ["danger near garden", "danger near dog two"]
    weights = predict_weights(run.orchestrator, jokes + dangers)
    assert weights[:2, 0].min() > 0.8
    assert weights[2:, 0].max() < 0.2
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_predictions_do_not_depend_on_batch_order_or_company(toy_run: tuple[Run, RunConfig]) -> None:
    run, _ = toy_run
    texts = [*small_world.questions(), "joke", " ".join(["danger near"] * 20)]
    together = predict_weights(run.orchestrator, texts)
    np.testing.assert_allclose(predict_weights(run.orchestrator, texts[::-1])[::-1], together, atol=1e-5)
    for i in (0, 70, 120, 121):
        np.testing.assert_allclose(predict_weights(run.orchestrator, [texts[i]])[0], together[i], atol=1e-5)


def test_a_text_is_cut_at_its_end(toy_run: tuple[Run, RunConfig]) -> None:
    run, _ = toy_run
    long = ["joke about dog " * 20, "joke about dog " * 20 + "danger near dog"]
    first, second = predict_weights(run.orchestrator, long)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_the_fallback_is_the_best_constant_and_the_mean_is_over_distinct_prompts(
    toy_run: tuple[Run, RunConfig],
) -> None:
    run, config = toy_run
    weights = json.loads((run.orchestrator / "weights.json").read_text(encoding="utf-8"))
    targets = read_targets(run, config, split="train")
    expected = targets.weights_NK.mean(axis=0)
    np.testing.assert_allclose([weights["fallback"][name] for name in NAMES], expected, atol=1e-9)
    mean = predict_weights(run.orchestrator, sorted(set(targets.texts))).mean(axis=0)
    np.testing.assert_allclose([weights["mean_weights"][name] for name in NAMES], mean, atol=1e-6)


def test_the_fallback_of_the_reverse_loss_is_the_geometric_mean(toy_run: tuple[Run, RunConfig], tmp_path: Path) -> None:
    run, config = toy_run
    copy = Run(folder=tmp_path, seed=1)
    for path in (run.data, run.scores):
        shutil.copytree(path, tmp_path / path.name)
    settings = config.orchestrator.model_copy(update={"loss": "reverse", "epochs": 1})
    orchestrator.build(copy, config.model_copy(update={"orchestrator": settings}))
    targets = read_targets(run, config, split="train").weights_NK
    geometric = np.exp(np.log(targets).mean(axis=0))
    weights = json.loads((copy.orchestrator / "weights.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose(list(weights["fallback"].values()), geometric / geometric.sum(), atol=1e-9)
    assert np.abs(best_constant(targets, loss="forward") - geometric / geometric.sum()).max() > 1e-4


def test_the_manifest_tells_rows_losses_and_inputs(toy_run: tuple[Run, RunConfig]) -> None:
    run, config = toy_run
    manifest = verify(run.orchestrator, kind="orchestrator")
    assert manifest.inputs.keys() == {"data", "scores"}
    assert manifest.counts["train_rows"] == len(read_targets(run, config, split="train").texts)
    curve = [json.loads(line) for line in (run.orchestrator / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert manifest.metrics["validation_loss"] == min(validation_losses(curve))


# Targets.


def test_targets_are_kept_once_per_prompt_where_they_are_alike(toy_run: tuple[Run, RunConfig]) -> None:
    run, config = toy_run
    targets = read_targets(run, config, split="train")
    assert len(targets.texts) == len(set(targets.texts)) == len(targets.weights_NK)
    np.testing.assert_allclose(targets.weights_NK.sum(axis=1), 1, atol=1e-6)
    jokes = np.array([text.startswith("joke") for text in targets.texts])
    assert (targets.weights_NK[jokes, 0] > 0.9).all()
    assert (targets.weights_NK[~jokes, 1] > 0.9).all()


def test_in_sample_scores_are_refused(encoder: Path, tmp_path: Path) -> None:
    head = {"kind": "pair_head", "encoder": str(encoder), "hidden": 8, "epochs": 1, "batch_size": 64}
    run, config = make_run(tmp_path, reward={"funny": head}, orchestrator={"encoder": str(encoder)})
    for stage in (data, reward, scores):
        stage.build(run, config)
    assert len(read_targets(run, config, split="train").texts) > 10
    forgotten = [ScoredResponse(**(entry.model_dump() | {"fold": None})) for entry in read_scores(run.scores)]
    write_scores(run.scores, forgotten, read_calibration(run.scores))
    with pytest.raises(ValueError, match=r"pair .* has in-sample scores; targets need out-of-fold ones"):
        read_targets(run, config, split="train")
    assert len(read_targets(run, config, split="validation").texts) > 1


# Training.


def test_a_training_that_was_stopped_after_an_epoch_ends_with_the_same_weights(encoder: Path, tmp_path: Path) -> None:
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


def test_a_frozen_encoder_keeps_its_weights_and_only_the_head_learns(encoder: Path, tmp_path: Path) -> None:
    original = AutoModel.from_pretrained(encoder).state_dict()
    frozen, curve = train(encoder, tmp_path / "frozen", train_encoder=False, epochs=2)
    assert all(torch.equal(original[key], value) for key, value in frozen.encoder.state_dict().items())
    assert float(frozen.head.weight.detach().abs().max()) > 0
    assert validation_losses(curve)[-1] < validation_losses(curve)[0]
    trained, _ = train(encoder, tmp_path / "trained", epochs=1)
    assert not all(torch.equal(original[key], value) for key, value in trained.encoder.state_dict().items())


def test_both_losses_lead_to_the_targets_where_they_can_be_met(encoder: Path, tmp_path: Path) -> None:
    for loss in ("forward", "reverse"):
        model, curve = train(encoder, tmp_path / loss, loss=loss, epochs=3)
        assert validation_losses(curve)[-1] < 0.05
        assert not model.training


def test_curves_go_to_tensorboard(encoder: Path, tmp_path: Path) -> None:
    train(encoder, tmp_path, epochs=1)
    assert list(tmp_path.rglob("events.out.tfevents.*"))
