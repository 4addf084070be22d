"""ONNX Runtime gives what the model gave; a wrong device, a wrong bundle or a wrong installation is loud."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import onnx
import onnxruntime
import pytest
from preforch_models.bundle import GOLDEN_FILE, ONNX_FILE, Bundle, read_bundle
from preforch_models.manifest import ArtifactError, Manifest, write_manifest
from preforch_service.readiness import replay_golden
from preforch_service.recommender import CUDA, DeviceError, OnnxRecommender, check_distributions, choose_providers


@pytest.fixture(scope="module")
def recommender(bundle: Bundle) -> Iterator[OnnxRecommender]:
    with closing(OnnxRecommender(bundle, threads=1)) as made:
        yield made


def test_golden_answers_are_reproduced(bundle: Bundle, recommender: OnnxRecommender) -> None:
    assert replay_golden(bundle, recommender) < 1e-5


def test_another_golden_answer_is_refused(bundle: Bundle, recommender: OnnxRecommender, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.path, folder)
    golden = (folder / GOLDEN_FILE).read_text(encoding="utf-8")
    (folder / GOLDEN_FILE).write_text(golden.replace("penguin", "lawyer"), encoding="utf-8")
    write_manifest(folder, Manifest(kind="bundle"))
    with pytest.raises(ArtifactError, match="golden prompt 2"):
        replay_golden(read_bundle(folder), recommender)


def test_answers_do_not_depend_on_the_batch(recommender: OnnxRecommender) -> None:
    texts = ["Tell me a joke", "", "word " * 500, "I feel sad"] * 20
    together = recommender.run(texts)
    for text, found in list(zip(texts, together, strict=True))[:4]:
        (alone,) = recommender.run([text])
        assert found.weights == pytest.approx(alone.weights, abs=1e-5)
        assert found.confidence == pytest.approx(alone.confidence, abs=1e-5)
        assert sum(found.weights.values()) == pytest.approx(1)
    (again,) = asyncio.run(recommender.recommend(texts[:1]))
    assert again.weights == pytest.approx(together[0].weights, abs=1e-5)


def test_another_confidence_than_the_golden_one_is_refused(bundle: Bundle, recommender: OnnxRecommender) -> None:
    other = bundle.golden[1].model_copy(update={"confidence": 1 - bundle.golden[1].confidence})
    harmed = bundle.model_copy(update={"golden": (bundle.golden[0], other)})
    with pytest.raises(ArtifactError, match=r"golden prompt 2 gives .*, confidence"):
        replay_golden(harmed, recommender)


def test_a_graph_without_confidence_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    path = tmp_path / "bundle" / ONNX_FILE
    graph = onnx.load(path)
    del graph.graph.output[1]
    onnx.save(graph, path)
    write_manifest(tmp_path / "bundle", Manifest(kind="bundle"))
    with pytest.raises(ArtifactError, match=r"outputs are \['weights'\], needed are .*; make the bundle again"):
        OnnxRecommender(read_bundle(tmp_path / "bundle"), threads=1)


def test_cuda_is_used_where_it_is_and_missed_loudly_where_it_is_not(bundle: Bundle) -> None:
    assert choose_providers("auto", [CUDA, "CPUExecutionProvider"])[0] == CUDA
    assert choose_providers("auto", ["CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    assert choose_providers("cpu", [CUDA, "CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    if CUDA in onnxruntime.get_available_providers():
        with closing(OnnxRecommender(bundle, device="cuda")) as made:
            assert made.device == CUDA
    else:
        with pytest.raises(DeviceError, match="cuda"):
            OnnxRecommender(bundle, device="cuda")


def test_two_builds_of_onnx_runtime_are_refused() -> None:
    check_distributions({"onnxruntime", "numpy"})
    with pytest.raises(DeviceError, match="onnxruntime-gpu"):
        check_distributions({"onnxruntime", "onnxruntime-gpu"})
