"""Stage `orchestrator`: it learns the rule, has targets out of fold, and reads prompts one by one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
from orchestrator_world import (
    validation_losses,
)
from preforch_models.manifest import verify
from preforch_models.orchestrator_model import OrchestratorModel
from preforch_training.config import RunConfig
from preforch_training.orchestrator.artifact import read_orchestrator_info
from preforch_training.orchestrator.confidence.familiarity import FOREIGN_TEXTS, add_confidence
from preforch_training.orchestrator.config import Config
from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.orchestrator.stage import first_of_equals, read_targets
from preforch_training.orchestrator.targets import LOG_SCALE_LIMIT, best_constant
from preforch_training.pipeline import open_run
from preforch_training.records import ScoredResponse, by_id, keys_of
from preforch_training.reward.scoring import score
from preforch_training.run import Run
from preforch_training.scores.table import read_calibration, read_scores, write_scores
from small_world import NAMES, build, make_config, make_run, pair_rows, write_rows


def copy_of(run: Run, folder: Path) -> Run:
    """What the stage reads of a run, in another folder."""
    for name in ("data", "reward", "scores"):
        shutil.copytree(run.folder / name, folder / name)
    return replace(run, folder=folder)


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


def test_familiarity_is_fitted_to_a_bounded_number_of_prompts(
    toy_run: tuple[Run, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = toy_run
    copy = copy_of(run, tmp_path)
    changed = {"train_encoder": False, "confidence": "report"}
    seen: list[int] = []

    def counted(model: OrchestratorModel, *vectors: np.ndarray, **options: Any) -> dict[str, float]:
        seen.extend(map(len, vectors))
        return add_confidence(model, *vectors, **options)

    monkeypatch.setattr("preforch_training.orchestrator.stage.add_confidence", counted)
    monkeypatch.setattr("preforch_training.orchestrator.stage.MOST_PROMPTS", 9)
    other = config.model_copy(update={"orchestrator": config.orchestrator.model_copy(update=changed)})
    build("orchestrator", copy, other)
    distinct = len(set(read_targets(copy, other.orchestrator, split="validation").texts))
    assert seen == [9, min(9, distinct), 3 * FOREIGN_TEXTS]


def test_rows_that_are_alike_to_nine_digits_are_one() -> None:
    values = np.array([[0.0, 1.0], [-1e-12, 1.0], [1e-8, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert first_of_equals(keys_of(["a", "a", "a", "b", "a"]), values).tolist() == [0, 2, 3]


def test_targets_need_the_rewards_only_where_scores_may_be_in_sample(
    toy_run: tuple[Run, RunConfig], tmp_path: Path
) -> None:
    run, config = toy_run
    copy = copy_of(run, tmp_path)
    shutil.rmtree(copy.folder / "reward")
    assert len(read_targets(copy, config.orchestrator, split="validation").texts) > 1


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


def test_in_sample_scores_are_targets_where_the_config_asks_for_them(encoder: Path, tmp_path: Path) -> None:
    """Preset `paper`: no fold models, every score is the full model's."""
    head = {"kind": "pair_head", "encoder": str(encoder), "hidden": 8, "epochs": 1, "batch_size": 64}
    run, config = make_run(
        tmp_path, reward={"funny": head, "folds": "off"}, orchestrator={"encoder": str(encoder)}
    )
    for stage in ("data", "reward", "scores"):
        build(stage, run, config)
    scored = [entry for entry in read_scores(run.scores) if entry.split == "train"]
    assert {entry.fold for entry in scored} == {None}
    prompts = by_id(run.prompts())
    asked, responses = [prompts[s.prompt_id] for s in scored], [s.response for s in scored]
    own_N = score(config.reward.objectives["funny"], run.reward("funny"), run.encoder_cache, asked, responses)
    np.testing.assert_allclose([entry.rewards["funny"] for entry in scored], own_N, atol=1e-6)
    assert len(read_targets(run, config.orchestrator, split="train").texts) > 10


def test_in_sample_scores_are_refused(encoder: Path, tmp_path: Path) -> None:
    head = {"kind": "pair_head", "encoder": str(encoder), "hidden": 8, "epochs": 1, "batch_size": 64}
    run, config = make_run(tmp_path, reward={"funny": head}, orchestrator={"encoder": str(encoder)})
    for stage in ("data", "reward", "scores"):
        build(stage, run, config)
    assert len(read_targets(run, config.orchestrator, split="train").texts) > 10
    forgotten = [ScoredResponse(**(entry.model_dump() | {"fold": None})) for entry in read_scores(run.scores)]
    write_scores(run.scores, forgotten, run.names)
    with pytest.raises(ValueError, match=r"pair .* has in-sample scores; targets need out-of-fold ones"):
        read_targets(run, config.orchestrator, split="train")
    assert len(read_targets(run, config.orchestrator, split="validation").texts) > 1


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


@pytest.mark.parametrize("train_encoder", [True, False])
def test_a_fitted_tau_is_the_one_that_f_is_served_with(
    toy_run: tuple[Run, RunConfig], tmp_path: Path, *, train_encoder: bool
) -> None:
    run, config = toy_run
    served, tau = {}, {}
    for setting in ("fit", 1.0):
        copy = copy_of(run, tmp_path / str(setting))
        changed = {"loss": "regress", "tau": setting, "train_encoder": train_encoder, "confidence": "off"}
        other = config.model_copy(update={"orchestrator": config.orchestrator.model_copy(update=changed)})
        build("orchestrator", copy, other)
        served[setting] = np.log(predict_weights(copy.orchestrator, ["joke about garden", "old text"]))
        tau[setting] = read_orchestrator_info(copy.orchestrator).tau
    assert tau[1.0] == 1.0 != tau["fit"]
    metrics = verify((tmp_path / "fit" / "orchestrator"), kind="orchestrator").metrics
    assert metrics["tau"] == tau["fit"]
    assert metrics["log_likelihood"] <= 0 < metrics["scale"]
    # Logits are known up to a constant of the row.
    fitted, plain = (served[setting][:, 0] - served[setting][:, 1] for setting in ("fit", 1.0))
    np.testing.assert_allclose(fitted, plain / tau["fit"], rtol=1e-4)


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
