"""Stage `bundle`: ONNX Runtime gives what torch gives, in every shape; no other bundle is ever written."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from preforch_models.bundle import (
    GOLDEN_TOLERANCE,
    INT8_FILE,
    ONNX_FILE,
    OUTPUTS,
    TOKENIZER_FILE,
    Bundle,
    read_bundle,
)
from preforch_models.conversation import conversation_text
from preforch_models.manifest import read_manifest
from preforch_models.orchestrator_model import OrchestratorModel
from preforch_training.bundle import stage
from preforch_training.bundle.config import Config
from preforch_training.config import RunConfig
from preforch_training.orchestrator.prediction import predict
from preforch_training.run import Run
from small_world import build
from tokenizers import Tokenizer

MAX_TOKENS = 24


@pytest.fixture(scope="module")
def made(toy_run: tuple[Run, RunConfig]) -> Bundle:
    """The toy run's bundle."""
    return read_bundle(toy_run[0].bundle)


@pytest.fixture(scope="module")
def session(made: Bundle) -> onnxruntime.InferenceSession:
    """ONNX Runtime with the bundle's graph."""
    return onnxruntime.InferenceSession(str(made.path / ONNX_FILE), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def model(toy_run: tuple[Run, RunConfig]) -> OrchestratorModel:
    """The checkpoint that the bundle was made from."""
    loaded: OrchestratorModel = OrchestratorModel.from_pretrained(toy_run[0].orchestrator).eval()
    return loaded


def test_the_bundle_says_what_the_run_decided(made: Bundle, toy_run: tuple[Run, RunConfig]) -> None:
    _, config = toy_run
    assert made.names == config.names
    assert made.info.context == config.context_format
    assert made.info.max_tokens == MAX_TOKENS
    method = {"target": "advantage_softmax", "tau": 1.0, "loss": "forward", "confidence": "shrink"}
    assert made.info.method == method
    assert made.info.preset == "recommended"
    assert made.info.onnx_difference <= config.bundle.max_difference


def test_golden_answers_are_replayed_from_the_files_of_the_bundle_alone(
    made: Bundle, session: onnxruntime.InferenceSession
) -> None:
    tokenizer = Tokenizer.from_file(str(made.path / TOKENIZER_FILE))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    tokenizer.enable_truncation(made.info.max_tokens)
    for golden in made.golden:
        ids = np.array([tokenizer.encode(conversation_text(golden.messages)).ids], dtype=np.int64)
        [weights], [confidence] = session.run(
            OUTPUTS, {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        )
        np.testing.assert_allclose(weights, list(golden.weights.values()), atol=GOLDEN_TOLERANCE)
        assert confidence == pytest.approx(golden.confidence, abs=GOLDEN_TOLERANCE)


def test_golden_answers_are_those_of_the_checkpoint(made: Bundle, toy_run: tuple[Run, RunConfig]) -> None:
    texts = [conversation_text(golden.messages) for golden in made.golden]
    expected = predict(toy_run[0].orchestrator, texts)
    found = np.array([[golden.weights[name] for name in made.names] for golden in made.golden])
    np.testing.assert_allclose(found, expected.weights_NK, atol=1e-4)
    np.testing.assert_allclose(
        [golden.confidence for golden in made.golden], expected.confidence_N, atol=1e-4
    )
    assert np.ptp(found[:, 0]) > 0.5


def test_onnx_and_torch_agree_in_every_shape(
    session: onnxruntime.InferenceSession, model: OrchestratorModel
) -> None:
    rng = np.random.default_rng(0)
    confidences: list[float] = []
    shapes = [(1, length) for length in range(1, MAX_TOKENS + 1)]
    shapes += [(batch, length) for batch in range(2, 18) for length in (1, 2, 7, MAX_TOKENS)]
    for batch, length in shapes:
        ids = rng.integers(4, 30, (batch, length), dtype=np.int64)
        mask = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(np.int64)
        found = session.run(OUTPUTS, {"input_ids": ids, "attention_mask": mask})
        with torch.inference_mode():
            expected = model.serve(torch.from_numpy(ids), torch.from_numpy(mask))
        for one, two in zip(found, expected, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, two.numpy(), atol=2e-5, err_msg=f"batch {batch}, length {length}")
        np.testing.assert_allclose(found[0].sum(axis=1), 1, atol=1e-5)
        confidences += found[1].tolist()
    # A confidence above 1/2 needs a familiarity above 1/2, with which a prompt keeps its weights.
    assert min(confidences) < 0.01
    assert max(confidences) > 0.5


def test_padding_changes_no_weights_in_onnx(session: onnxruntime.InferenceSession) -> None:
    ids = np.array([[2, 5, 9, 3, 0, 0, 0]], dtype=np.int64)
    padded = session.run(["weights"], {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)})[0]
    bare = session.run(["weights"], {"input_ids": ids[:, :4], "attention_mask": np.ones((1, 4), np.int64)})[0]
    np.testing.assert_allclose(padded, bare, atol=1e-6)


def test_golden_prompts_are_held_out_and_as_many_as_asked(
    toy_run: tuple[Run, RunConfig], made: Bundle
) -> None:
    run, config = toy_run
    held_out = [prompt for prompt in run.prompts() if prompt.split != "train"]
    assert len(made.golden) == min(config.bundle.golden_prompts, len(held_out))
    for count in (1, 3, 10):
        prompts = stage.golden_prompts(run, count)
        assert len({prompt.id for prompt in prompts}) == count
        assert all(prompt.split != "train" for prompt in prompts)


def test_a_difference_that_is_too_large_is_refused_and_leaves_nothing(
    toy_run: tuple[Run, RunConfig], tmp_path: Path
) -> None:
    run, config = toy_run
    copy = replace(run, folder=tmp_path)
    for path in (run.data, run.scores, run.orchestrator):
        shutil.copytree(path, tmp_path / path.name)
    strict = config.model_copy(update={"bundle": Config(max_difference=-1.0)})
    with pytest.raises(ValueError, match=r"torch and ONNX differ by .*, allowed is -1e"):
        build("bundle", copy, strict)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "orchestrator", "scores"]


def test_the_int8_graph_gives_about_the_same_and_the_bundle_says_how_far_off_it_is(
    made: Bundle, session: onnxruntime.InferenceSession
) -> None:
    says = made.info.int8
    assert says is not None
    int8 = onnxruntime.InferenceSession(str(made.path / INT8_FILE), providers=["CPUExecutionProvider"])
    assert [output.name for output in int8.get_outputs()] == list(OUTPUTS)
    tokenizer = Tokenizer.from_file(str(made.path / TOKENIZER_FILE))
    differences = []
    for golden in made.golden:
        ids = np.array([tokenizer.encode(conversation_text(golden.messages)).ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        exact, found = session.run(OUTPUTS, feed), int8.run(OUTPUTS, feed)
        differences.append(np.abs(exact[0] - found[0]).max())
        assert np.abs(exact[1] - found[1]).max() <= says.largest_confidence_difference + 1e-5
    assert 0 < max(differences) <= says.largest_difference + 1e-5
    assert 0 < says.mean_difference < says.largest_difference < 0.1
    assert says.largest_difference < says.tolerance
    assert says.changed_largest < 0.1
    metrics = read_manifest(made.path).metrics["int8"]
    assert metrics["speed_ratio"] > 0
    assert metrics["tolerance"] == says.tolerance


def test_the_int8_graph_can_be_left_out(toy_run: tuple[Run, RunConfig], tmp_path: Path) -> None:
    run, config = toy_run
    copy = replace(run, folder=tmp_path)
    for path in (run.data, run.scores, run.orchestrator):
        shutil.copytree(path, tmp_path / path.name)
    build("bundle", copy, config.model_copy(update={"bundle": Config(int8=False)}))
    bundle = read_bundle(copy.bundle)
    assert bundle.info.int8 is None
    assert not (copy.bundle / INT8_FILE).exists()
    with pytest.raises(ValueError, match="precision 'fp32' only"):
        bundle.onnx_file("int8")
