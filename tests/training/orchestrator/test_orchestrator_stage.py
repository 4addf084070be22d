"""Stage `orchestrator`: it learns the rule, continues where it was stopped, and reads prompts one by one."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
import torch
from head_rows import fit_rows
from preforch_models.manifest import verify
from preforch_models.orchestrator_model import OrchestratorModel
from preforch_training.config import RunConfig
from preforch_training.embeddings.vectors import EncoderSettings, TextVectors
from preforch_training.orchestrator.artifact import read_orchestrator_info
from preforch_training.orchestrator.config import Config
from preforch_training.orchestrator.fine_tuning import fit
from preforch_training.orchestrator.fitting import Fitted, Targets, fit_frozen
from preforch_training.orchestrator.prediction import predict_weights, weights_of
from preforch_training.orchestrator.stage import read_targets
from preforch_training.orchestrator.targets import LOG_SCALE_LIMIT, best_constant, constant_gate, softmax
from preforch_training.pipeline import open_run
from preforch_training.records import ScoredResponse
from preforch_training.run import Run
from preforch_training.scores.table import read_calibration, read_scores, write_scores
from safetensors.torch import load_file
from small_world import NAMES, build, make_config, make_run, pair_rows, write_rows
from transformers import AutoModel, AutoTokenizer

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
    assert fitted.numbers["validation_loss"] == min(validation_losses(curve))
    return fitted.model, curve


def read_curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def train(
    encoder: Path, work: Path, *, validation: Targets = VALIDATION, **options: Any
) -> tuple[OrchestratorModel, list[dict[str, float]]]:
    return train_on(encoder, work, TRAIN, validation, **options)


def copy_of(run: Run, folder: Path) -> Run:
    """What the stage reads of a run, in another folder."""
    for name in ("data", "reward", "scores"):
        shutil.copytree(run.folder / name, folder / name)
    return replace(run, folder=folder)


def validation_losses(curve: list[dict[str, float]]) -> list[float]:
    return [entry["eval_loss"] for entry in curve if "eval_loss" in entry]


# A whole stage.


def test_the_orchestrator_learns_which_prompts_want_what(toy_run: tuple[Run, RunConfig]) -> None:
    run, _ = toy_run
    jokes, dangers = (
        ["joke about garden", "joke about dog two"],
        ["danger near garden", "danger near dog two"],
    )
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
    fitted = read_orchestrator_info(run.orchestrator)
    targets = read_targets(run, config.orchestrator, split="train")
    expected = targets.labels_NK.mean(axis=0)
    np.testing.assert_allclose([fitted.fallback[name] for name in NAMES], expected, atol=1e-9)
    mean = predict_weights(run.orchestrator, sorted(set(targets.texts))).mean(axis=0)
    np.testing.assert_allclose([fitted.mean_weights[name] for name in NAMES], mean, atol=1e-6)


def test_the_fallback_of_the_reverse_loss_is_the_geometric_mean(
    toy_run: tuple[Run, RunConfig], tmp_path: Path
) -> None:
    run, config = toy_run
    copy = copy_of(run, tmp_path)
    settings = config.orchestrator.model_copy(update={"loss": "reverse", "epochs": 1})
    build("orchestrator", copy, config.model_copy(update={"orchestrator": settings}))
    targets = read_targets(run, config.orchestrator, split="train").labels_NK
    geometric = np.exp(np.log(targets).mean(axis=0))
    fallback = read_orchestrator_info(copy.orchestrator).fallback
    np.testing.assert_allclose([fallback[name] for name in NAMES], geometric / geometric.sum(), atol=1e-9)
    assert np.abs(best_constant(targets, loss="forward") - geometric / geometric.sum()).max() > 1e-4


def test_the_manifest_tells_rows_losses_and_inputs(toy_run: tuple[Run, RunConfig]) -> None:
    run, config = toy_run
    manifest = verify(run.orchestrator, kind="orchestrator")
    assert manifest.inputs.keys() == {"data", "scores"}
    assert manifest.counts["train_rows"] == len(read_targets(run, config.orchestrator, split="train").texts)
    curve = [
        json.loads(line)
        for line in (run.orchestrator / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert manifest.metrics["validation_loss"] == min(validation_losses(curve))


# Targets.


def test_targets_are_kept_once_per_prompt_where_they_are_alike(toy_run: tuple[Run, RunConfig]) -> None:
    run, config = toy_run
    targets = read_targets(run, config.orchestrator, split="train")
    assert len(targets.texts) == len(set(targets.texts)) == len(targets.labels_NK)
    np.testing.assert_allclose(targets.labels_NK.sum(axis=1), 1, atol=1e-6)
    jokes = np.array([text.startswith("joke") for text in targets.texts])
    assert (targets.labels_NK[jokes, 0] > 0.9).all()
    assert (targets.labels_NK[~jokes, 1] > 0.9).all()


def test_every_pair_counts_where_labels_are_of_pairs(encoder: Path, tmp_path: Path) -> None:
    # A prompt whose chosen response was preferred to three others; the rewards of two of these are the same.
    rows = [*pair_rows(), {**pair_rows()[2], "rejected": "nothing"}, {**pair_rows()[2], "rejected": "what"}]
    write_rows(tmp_path / "pairs.jsonl", rows)
    prompt = rows[-1]["prompt"]
    counts = {}
    for loss in ("forward", "regress", "bt_gate"):
        for target in ("chosen_softmax", "margin_softmax"):
            settings = {"encoder": str(encoder), "loss": loss, "target": target}
            config = make_config(tmp_path, orchestrator=settings)
            run = open_run(config)
            for stage in ("data", "reward", "scores"):
                build(stage, run, config)
            split = next(p.split for p in run.prompts() if p.text == prompt)
            counts[loss, target] = read_targets(run, config.orchestrator, split=split).texts.count(prompt)
    assert counts == {
        ("forward", "chosen_softmax"): 1,
        ("forward", "margin_softmax"): 3,
        ("regress", "chosen_softmax"): 1,
        ("regress", "margin_softmax"): 3,
        ("bt_gate", "chosen_softmax"): 3,
        ("bt_gate", "margin_softmax"): 3,
    }


def test_labels_of_regress_are_values_and_of_bt_gate_margins(toy_run: tuple[Run, RunConfig]) -> None:
    run, config = toy_run
    for loss in ("regress", "bt_gate"):
        settings = config.orchestrator.model_copy(update={"loss": loss, "target": "chosen_softmax"})
        targets = read_targets(run, settings, split="train")
        jokes = np.array([text.startswith("joke") for text in targets.texts])
        scale = [constants.scale for constants in read_calibration(run.scores).constants.values()]
        offset = [constants.offset for constants in read_calibration(run.scores).constants.values()]
        chosen, rejected = np.array([1.0, 0.0]), np.array([0.0, 1.0])
        expected = (chosen - offset if loss == "regress" else chosen - rejected) * np.array(scale)
        np.testing.assert_allclose(targets.labels_NK[jokes], np.tile(expected, (jokes.sum(), 1)), atol=1e-9)


def test_in_sample_scores_are_refused(encoder: Path, tmp_path: Path) -> None:
    head = {"kind": "pair_head", "encoder": str(encoder), "hidden": 8, "epochs": 1, "batch_size": 64}
    run, config = make_run(tmp_path, reward={"funny": head}, orchestrator={"encoder": str(encoder)})
    for stage in ("data", "reward", "scores"):
        build(stage, run, config)
    assert len(read_targets(run, config.orchestrator, split="train").texts) > 10
    forgotten = [ScoredResponse(**(entry.model_dump() | {"fold": None})) for entry in read_scores(run.scores)]
    write_scores(run.scores, forgotten, read_calibration(run.scores))
    with pytest.raises(ValueError, match=r"pair .* has in-sample scores; targets need out-of-fold ones"):
        read_targets(run, config.orchestrator, split="train")
    assert len(read_targets(run, config.orchestrator, split="validation").texts) > 1


# Training.


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


def read_validation(model: OrchestratorModel, encoder: Path) -> np.ndarray:
    return weights_of(model, AutoTokenizer.from_pretrained(encoder), VALIDATION.texts)


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


def gate_rows(texts: list[str], seed: int) -> Targets:
    """Pairs won with the log-odds 4 (w.margin), w = (0.9, 0.1) for jokes and (0.2, 0.8) for dangers."""
    rng = np.random.default_rng(seed)
    true = np.where([[text.startswith("joke")] for text in texts], [[0.9, 0.1]], [[0.2, 0.8]])
    margins = 2 * rng.normal(size=true.shape)
    won = (4 * (true * margins).sum(axis=1) + rng.logistic(size=len(texts))) > 0
    return Targets(texts, np.where(won[:, None], margins, -margins))


def test_bt_gate_leads_to_the_weights_that_the_choices_were_made_with(encoder: Path, tmp_path: Path) -> None:
    rows, held = gate_rows(TRAIN.texts * 6, 0), gate_rows(VALIDATION.texts * 60, 1)
    model, _ = train_on(encoder, tmp_path, rows, held, loss="bt_gate", epochs=4)
    np.testing.assert_allclose(read_validation(model, encoder), [[0.9, 0.1], [0.2, 0.8]], atol=0.15)


def test_the_scale_of_bt_gate_is_learned_and_survives_a_stop(encoder: Path, tmp_path: Path) -> None:
    rows, held = gate_rows(TRAIN.texts, 0), gate_rows(VALIDATION.texts * 20, 1)
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


# A frozen encoder.


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
    found = weights_of(fitted.model, fitted.tokenizer, texts)
    np.testing.assert_allclose(found, head.weights(vectors(texts)), atol=1e-4)


def test_a_frozen_stage_reports_the_scale_of_bt_gate_and_its_fallback(
    toy_run: tuple[Run, RunConfig], tmp_path: Path
) -> None:
    run, config = toy_run
    copy = copy_of(run, tmp_path)
    changed = {"loss": "bt_gate", "train_encoder": False, "entropy_prior": 0.1}
    other = config.model_copy(update={"orchestrator": config.orchestrator.model_copy(update=changed)})
    build("orchestrator", copy, other)
    manifest = verify(copy.orchestrator, kind="orchestrator")
    # Choices of the toy world are without an error.
    assert manifest.metrics["scale"] == pytest.approx(np.exp(LOG_SCALE_LIMIT))
    targets = read_targets(copy, other.orchestrator, split="train")
    expected = best_constant(targets.labels_NK, loss="bt_gate", entropy_prior=0.1)
    np.testing.assert_allclose(list(manifest.metrics["fallback"].values()), expected, atol=1e-9)
    weights = predict_weights(copy.orchestrator, ["joke about garden", "danger near garden"])
    assert weights[0, 0] > 0.501
    assert weights[1, 1] > 0.501


def test_frozen_vectors_have_no_revisions() -> None:
    with pytest.raises(ValueError, match="revision is 'v2'; frozen vectors"):
        Config(
            target="margin_softmax",
            tau=1.0,
            loss="forward",
            confidence="off",
            train_encoder=False,
            revision="v2",
        )


def test_curves_go_to_tensorboard(encoder: Path, tmp_path: Path) -> None:
    train(encoder, tmp_path, epochs=1)
    assert list(tmp_path.rglob("events.out.tfevents.*"))
