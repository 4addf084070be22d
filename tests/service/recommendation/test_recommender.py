"""ONNX Runtime gives what the model gave; a wrong device, a wrong bundle or a wrong installation is loud."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from preforch_models.bundle import (
    GOLDEN_FILE,
    INT8_FILE,
    ONNX_FILE,
    Bundle,
    Int8,
    read_bundle,
    write_bundle_files,
)
from preforch_models.manifest import ArtifactError, Manifest, write_manifest
from preforch_service.engine.readiness import replay_golden
from preforch_service.recommendation.cache import Cache
from preforch_service.recommendation.onnx_session import (
    CUDA,
    DeviceError,
    OnnxSession,
    check_distributions,
    choose_providers,
)
from preforch_service.recommendation.recommender import OnnxRecommender, QueueFull, Recommendation
from preforch_service.telemetry.metrics import Metrics
from preforch_training.bundle.quantisation import quantise


@pytest.fixture(scope="module")
def recommender(bundle: Bundle) -> Iterator[OnnxRecommender]:
    with closing(OnnxRecommender(bundle, threads=1)) as made:
        yield made


def test_golden_answers_are_reproduced(bundle: Bundle, recommender: OnnxRecommender) -> None:
    assert replay_golden(bundle, recommender) < 1e-5


def test_another_golden_answer_is_refused(
    bundle: Bundle, recommender: OnnxRecommender, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.path, folder)
    golden = (folder / GOLDEN_FILE).read_text(encoding="utf-8")
    (folder / GOLDEN_FILE).write_text(golden.replace("penguin", "lawyer"), encoding="utf-8")
    write_manifest(folder, Manifest(kind="bundle"))
    with pytest.raises(ArtifactError, match="golden prompt 2"):
        replay_golden(read_bundle(folder), recommender)


def test_answers_do_not_depend_on_the_batch(recommender: OnnxRecommender) -> None:
    texts = [
        "Tell me a joke",
        "",
        "word " * 500,
        "I feel sad",
        *(f"{n} bicycles " * (n % 9) for n in range(90)),
    ]
    together = asyncio.run(recommender.recommend(texts))
    for found, alone in zip(together, recommender.run(texts), strict=True):
        assert found.weights == pytest.approx(alone.weights, abs=1e-5)
        assert found.confidence == pytest.approx(alone.confidence, abs=1e-5)
        assert sum(found.weights.values()) == pytest.approx(1)


def test_a_cached_answer_is_the_computed_one_and_is_counted(bundle: Bundle) -> None:
    metrics, cache = Metrics(), Cache[Recommendation](8)
    with closing(OnnxRecommender(bundle, threads=1, cache=cache, metrics=metrics)) as made:
        first = asyncio.run(made.recommend(["a joke", "a tyre", "a joke"]))
        again = asyncio.run(made.recommend(["a tyre", "a joke"]))
        assert [first[1], first[0]] == again
        assert first[0] == first[2]
        assert first[0] != first[1]
    assert (counted(metrics, "hit"), counted(metrics, "miss")) == (2, 2)
    assert len(cache) == 2


def test_without_a_cache_every_text_is_a_miss(bundle: Bundle) -> None:
    metrics = Metrics()
    with closing(OnnxRecommender(bundle, threads=1, metrics=metrics)) as made:
        for _ in range(2):
            asyncio.run(made.recommend(["a joke"]))
    assert (counted(metrics, "hit"), counted(metrics, "miss")) == (0, 2)


def test_a_shared_cache_keeps_bundles_apart(bundle: Bundle) -> None:
    cache: Cache[Recommendation] = Cache(8)
    other = bundle.model_copy(update={"revision": "another"})
    for one in (bundle, other, bundle):
        with closing(OnnxRecommender(one, threads=1, cache=cache)) as made:
            asyncio.run(made.recommend(["a joke"]))
    assert len(cache) == 2


def test_the_same_text_of_many_requests_is_computed_once(bundle: Bundle) -> None:
    metrics = Metrics()

    async def ask(made: OnnxRecommender) -> list[list[Recommendation]]:
        return await asyncio.gather(*(made.recommend(["a joke", "a tyre"]) for _ in range(20)))

    with closing(OnnxRecommender(bundle, threads=1, cache=Cache(8), metrics=metrics)) as made:
        answers = asyncio.run(ask(made))
    assert all(answer == answers[0] for answer in answers)
    assert metrics.registry.get_sample_value("preforch_orchestrator_batch_size_sum") == 2


def test_more_requests_than_may_wait_are_refused_and_a_cached_text_never_is(bundle: Bundle) -> None:
    metrics = Metrics()

    async def ask(made: OnnxRecommender) -> list[object]:
        await made.recommend(["cached"])
        asked = [made.recommend([text]) for text in ("one", "two", "three", "cached")]
        return await asyncio.gather(*asked, return_exceptions=True)

    with closing(OnnxRecommender(bundle, threads=1, max_requests=2, cache=Cache(8), metrics=metrics)) as made:
        found = asyncio.run(ask(made))
    assert [isinstance(answer, list) for answer in found] == [True, True, False, True]
    assert isinstance(found[2], QueueFull)
    assert metrics.registry.get_sample_value("preforch_orchestrator_queue") == 0


def test_a_closed_recommender_fails_and_does_not_hang(bundle: Bundle) -> None:
    made = OnnxRecommender(bundle, threads=1)
    made.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        asyncio.run(made.recommend(["a joke"]))


def test_bound_inputs_and_outputs_give_the_same_answers(bundle: Bundle) -> None:
    plain, bound = (
        OnnxSession(bundle, device="cpu", threads=1, precision="fp32", io_binding=io_binding)
        for io_binding in (False, True)
    )
    for texts in (["a joke"], ["a joke", "How do I repair a bicycle tyre?", ""]):
        for one, other in zip(
            plain.forward(plain.encode(texts)), bound.forward(bound.encode(texts)), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_int8_is_served_where_the_bundle_has_it_and_refused_where_not(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no orchestrator.int8.onnx.*int8 = true"):
        OnnxRecommender(bundle, threads=1, precision="int8")
    with closing(
        OnnxRecommender(int8_bundle(bundle, tmp_path / "bundle"), threads=1, precision="int8")
    ) as made:
        found = asyncio.run(made.recommend(["a joke"]))
    with closing(OnnxRecommender(bundle, threads=1)) as exact:
        (expected,) = exact.run(["a joke"])
    assert found[0].weights == pytest.approx(expected.weights, abs=0.05)
    assert found[0] != expected


def test_golden_answers_in_int8_are_held_to_the_tolerance_that_the_bundle_states(
    bundle: Bundle, tmp_path: Path
) -> None:
    loose = int8_bundle(bundle, tmp_path / "loose")
    with closing(OnnxRecommender(loose, threads=1, precision="int8")) as made:
        assert 0 < replay_golden(loose, made) < 0.1
    assert loose.info.int8 is not None
    for field in ("tolerance", "confidence_tolerance"):
        strict = loose.info.int8.model_copy(update={field: 1e-9})
        harmed = loose.model_copy(update={"info": loose.info.model_copy(update={"int8": strict})})
        with (
            closing(OnnxRecommender(harmed, threads=1, precision="int8")) as made,
            pytest.raises(ArtifactError, match=r"golden prompt 1 .*allowed 1e-09"),
        ):
            replay_golden(harmed, made)


def counted(metrics: Metrics, result: str) -> float | None:
    return metrics.registry.get_sample_value("preforch_cache_requests_total", {"result": result})


def int8_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle with a graph in 8 bits."""
    shutil.copytree(bundle.path, folder)
    quantise(folder / ONNX_FILE, folder / INT8_FILE)
    says = Int8(
        prompts=5,
        largest_difference=0.05,
        mean_difference=0.01,
        largest_confidence_difference=0.05,
        mean_confidence_difference=0.01,
        changed_largest=0.0,
        tolerance=0.1,
        confidence_tolerance=0.1,
        size_ratio=0.5,
    )
    write_bundle_files(folder, bundle.info.model_copy(update={"int8": says}), list(bundle.golden))
    write_manifest(folder, Manifest(kind="bundle"))
    return read_bundle(folder)


def test_another_confidence_than_the_golden_one_is_refused(
    bundle: Bundle, recommender: OnnxRecommender
) -> None:
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
    with pytest.raises(
        ArtifactError, match=r"outputs are \['weights'\], needed are .*; make the bundle again"
    ):
        OnnxRecommender(read_bundle(tmp_path / "bundle"), threads=1)


def test_cuda_is_used_where_it_is_and_missed_loudly_where_it_is_not(bundle: Bundle) -> None:
    assert choose_providers("auto", [CUDA, "CPUExecutionProvider"])[0] == CUDA
    assert choose_providers("auto", ["CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    assert choose_providers("cpu", [CUDA, "CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    assert choose_providers("auto", [CUDA, "CPUExecutionProvider"], precision="int8") == [
        "CPUExecutionProvider"
    ]
    with pytest.raises(DeviceError, match="int8"):
        choose_providers("cuda", [CUDA, "CPUExecutionProvider"], precision="int8")
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
