"""Confidence: familiar prompts keep their weights, far ones get the fallback, in torch and in ONNX alike."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from preforch_models.bundle import OUTPUTS
from preforch_models.manifest import ArtifactError
from preforch_models.orchestrator_model import Familiarity, OrchestratorModel
from preforch_training.bundle.onnx_export import export_onnx
from preforch_training.orchestrator.confidence.familiarity import (
    add_confidence,
    familiarity_of,
    fit_familiarity,
    signals_of,
)
from preforch_training.orchestrator.prediction import serve_vectors
from safetensors.torch import load_file, save_file
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

NAMES = ("helpful", "harmless", "humor")
FALLBACK = np.array([0.2, 0.3, 0.5])
WIDTH = 16
IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0], [2, 9, 20, 3, 0]])
MASK = (IDS != 0).long()


def vectors(count: int, *, seed: int, far: float = 0.0) -> np.ndarray:
    """Vectors of different spread by place; `far` turns them away from their usual direction."""
    rng = np.random.default_rng(seed)
    usual = 3 + np.linspace(0.1, 0.6, WIDTH) * rng.normal(size=(count, WIDTH))
    return np.asarray(usual - far * (np.arange(WIDTH) < WIDTH // 2), dtype=np.float32)


def known() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of training, held out, foreign."""
    return vectors(400, seed=0), vectors(200, seed=1), vectors(60, seed=4, far=1.5)


def fitted() -> Familiarity:
    return fit_familiarity(*known(), fallback_K=FALLBACK)


def with_confidence(confidence: Literal["report", "shrink"]) -> OrchestratorModel:
    """A tiny orchestrator that knows the vectors above."""
    model = tiny.orchestrator(NAMES, 40)
    add_confidence(model, *known(), fallback_K=FALLBACK, confidence=confidence)
    return model


def around(model: OrchestratorModel, *, shift: float) -> None:
    """Fit to vectors near those of IDS, for the first; the others are away from it by `shift` and more."""
    with torch.inference_mode():
        pooled = model.pooled(IDS, MASK).numpy()
    rng = np.random.default_rng(0)
    near = [pooled[0] + shift * rng.normal(size=(n, WIDTH)) for n in (400, 200)]
    foreign = pooled[1] + (pooled[1] - pooled[0]) * rng.normal(size=(60, WIDTH))
    add_confidence(model, near[0], near[1], foreign, fallback_K=FALLBACK, confidence="shrink")


def known_to(model: OrchestratorModel, vectors_ND: np.ndarray) -> np.ndarray:
    assert model.familiarity is not None
    return familiarity_of(model.familiarity, vectors_ND)


def test_held_out_prompts_are_familiar_and_far_ones_are_not() -> None:
    model = with_confidence("report")
    fresh = known_to(model, vectors(500, seed=2))
    assert np.median(fresh) > 0.9
    assert (fresh < 0.5).mean() < 0.05
    assert np.median(known_to(model, vectors(50, seed=3, far=1.5))) < 0.1
    assert known_to(model, vectors(50, seed=3, far=5)).max() < 0.05


def test_familiarity_is_the_probability_at_even_odds_by_the_distance_of_mahalanobis() -> None:
    def distances(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(gauss.mahalanobis(directions(values))))

    def directions(values: np.ndarray) -> np.ndarray:
        return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=np.float64)

    model, (train, held_out, foreign) = with_confidence("report"), known()
    gauss = LedoitWolf().fit(directions(train))
    log_N = np.log(np.concatenate([distances(held_out), distances(foreign)]))[:, None]
    # 200 prompts weigh as much as 60 foreign texts.
    logistic = LogisticRegression(class_weight="balanced").fit(log_N / log_N.std(), [1] * 200 + [0] * 60)
    fresh = vectors(50, seed=2, far=0.8)
    expected = logistic.predict_proba(np.log(distances(fresh))[:, None] / log_N.std())[:, 1]
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(known_to(model, fresh), expected, atol=1e-4)
    # Only the direction counts.
    np.testing.assert_allclose(known_to(model, 7 * fresh), expected, atol=1e-4)


def test_foreign_texts_that_are_no_farther_away_say_nothing() -> None:
    train, held_out, _ = known()
    found = fit_familiarity(train, held_out, train[:60], fallback_K=FALLBACK)
    assert (found(torch.from_numpy(vectors(9, seed=3, far=5))) == 0.5).all()


def test_familiar_prompts_keep_their_weights_exactly_and_far_ones_get_the_fallback() -> None:
    plain, shrunk = tiny.orchestrator(NAMES, 40), with_confidence("shrink")
    fresh, far = vectors(300, seed=2, far=0.8), vectors(20, seed=3, far=5)
    familiar = known_to(shrunk, fresh) >= 0.5
    assert 0 < familiar.mean() < 1
    expected, found = serve_vectors(plain, fresh).weights_NK, serve_vectors(shrunk, fresh).weights_NK
    np.testing.assert_array_equal(found[familiar], expected[familiar])
    assert np.abs(found[~familiar] - expected[~familiar]).max() > 1e-3
    served = serve_vectors(shrunk, far)
    np.testing.assert_allclose(served.weights_NK, np.tile(FALLBACK, (20, 1)), atol=1e-4)
    assert served.confidence_N.max() < 1e-2
    assert np.abs(serve_vectors(plain, far).weights_NK - FALLBACK).max() > 0.1


def test_weights_between_lie_on_the_line_to_the_fallback() -> None:
    half = torch.tensor([[0.8, 0.1, 0.1]])
    shrunk = fitted().shrink(half, torch.tensor([0.25]))
    torch.testing.assert_close(shrunk[0], (half[0] + torch.tensor(FALLBACK, dtype=torch.float32)) / 2)


def test_report_knows_confidence_but_leaves_the_weights_alone() -> None:
    plain, report = tiny.orchestrator(NAMES, 40), with_confidence("report")
    far = vectors(20, seed=3, far=5)
    np.testing.assert_array_equal(serve_vectors(report, far).weights_NK, serve_vectors(plain, far).weights_NK)
    assert serve_vectors(report, far).confidence_N.max() < 1e-2


def test_off_is_the_plain_softmax_and_its_confidence_comes_from_the_entropy_alone() -> None:
    model = tiny.orchestrator(NAMES, 40)
    assert model.familiarity is None
    weights, confidence = model.serve(IDS, MASK)
    assert torch.equal(weights, model(IDS, MASK).exp())
    entropy = -(weights * weights.log()).sum(dim=-1)
    torch.testing.assert_close(confidence, 1 - entropy / np.log(3) / 2)


def test_training_never_sees_the_shrinkage() -> None:
    plain, shrunk = tiny.orchestrator(NAMES, 40), tiny.orchestrator(NAMES, 40)
    around(shrunk, shift=1e-3)
    assert torch.equal(plain(IDS, MASK), shrunk(IDS, MASK))
    assert not torch.equal(shrunk.serve(IDS, MASK)[0], shrunk(IDS, MASK).exp())


def test_a_saved_orchestrator_serves_the_same(tmp_path: Path) -> None:
    model = with_confidence("shrink")
    model.save_pretrained(tmp_path)
    loaded = OrchestratorModel.from_pretrained(tmp_path).eval()
    assert loaded.config.confidence == "shrink"
    for vectors_ND in (vectors(20, seed=2), vectors(20, seed=3, far=0.2)):
        one, two = serve_vectors(model, vectors_ND), serve_vectors(loaded, vectors_ND)
        np.testing.assert_array_equal(one.weights_NK, two.weights_NK)
        np.testing.assert_array_equal(one.confidence_N, two.confidence_N)


def test_a_checkpoint_that_lacks_something_is_refused(tmp_path: Path) -> None:
    with_confidence("report").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["familiarity.location"] = weights.pop("familiarity.log_location")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"has no familiarity\.log_location; .* train it again"):
        OrchestratorModel.from_pretrained(tmp_path)


def test_onnx_gives_what_torch_gives_with_shrinkage(tmp_path: Path) -> None:
    model = tiny.orchestrator(NAMES, 40)
    # Wide enough for the first prompt to be familiar and the second in between, narrow enough for the third
    # to be far.
    around(model, shift=0.25)
    export_onnx(model, tmp_path / "graph.onnx", max_tokens=tiny.MAX_TOKENS)
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(OUTPUTS)
    found = session.run(list(OUTPUTS), {"input_ids": IDS.numpy(), "attention_mask": MASK.numpy()})
    with torch.inference_mode():
        expected = model.serve(IDS, MASK)
        plain = model(IDS, MASK).exp().numpy()
    for one, two in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, two.numpy(), atol=1e-5)
    # Both sides of the threshold were seen.
    np.testing.assert_allclose(found[0][0], plain[0], atol=1e-6)
    assert np.abs(found[0][1:] - plain[1:]).max() > 1e-2


def test_signals_are_high_for_familiar_prompts() -> None:
    signals = signals_of(
        with_confidence("shrink"), np.concatenate([vectors(9, seed=2), vectors(9, seed=2, far=5)])
    )
    assert list(signals) == ["certainty", "confidence"]
    assert signals["confidence"][:9].min() > signals["confidence"][9:].max()
    assert all(((values >= 0) & (values <= 1)).all() for values in signals.values())


def test_prompts_that_are_all_alike_and_too_few_of_them() -> None:
    model = tiny.orchestrator(NAMES, 40)
    held = np.repeat(vectors(1, seed=1), 5, axis=0)
    numbers = add_confidence(model, vectors(50, seed=0), held, held, fallback_K=FALLBACK, confidence="shrink")
    assert np.isfinite(list(numbers.values())).all()
    pair = np.repeat(vectors(2, seed=0), 5, axis=0)
    for few in (pair[:1].repeat(10, axis=0), pair, pair[::5]):
        found = fit_familiarity(few, held, vectors(9, seed=4, far=1.5), fallback_K=FALLBACK)
        assert np.isfinite(familiarity_of(found, vectors(9, seed=3))).all()
    with pytest.raises(
        ValueError, match=r"'shrink' needs 2 training prompts and 1 for validation, got 1 and 5"
    ):
        add_confidence(model, held[:1], held, held, fallback_K=FALLBACK, confidence="shrink")
