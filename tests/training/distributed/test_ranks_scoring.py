"""Scores and predictions do not depend on who computes them: one process, two ranks, two workers of Ray."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
import tiny
from kill_resume import MARK, marked
from preforch_models.manifest import read_manifest
from preforch_training.config import RunConfig
from preforch_training.orchestrator.prediction import predict
from preforch_training.records import ScoredResponse
from preforch_training.reward.ray_scoring import score_by_ray
from preforch_training.run import Run
from preforch_training.scores.table import read_scores
from ranks_world import with_ranks
from small_world import NAMES, build, make_run
from transformers import PreTrainedTokenizerFast

# Ray warns of settings of its own.
pytestmark = pytest.mark.filterwarnings("ignore:`[a-z0-9_]+` is deprecated")

TEXTS = [f"{text} {number}" for number in range(3) for text in tiny.TEXTS]


def scored(folder: Path, **scores: Any) -> tuple[Run, RunConfig]:
    """A run up to its scores; its rewards are two logits of one classifier."""
    path = folder.parent / "classifier"
    if not path.exists():
        small_world.write_bert_classifier(path)
    rewards = {
        name: {"kind": "classifier", "model": str(path), "label": label, "max_tokens": 24, "batch_size": 4}
        for label, name in enumerate(NAMES)
    }
    folder.mkdir(exist_ok=True)
    run, config = make_run(folder, reward=rewards, scores={"calibration": "zscore", **scores})
    for stage in ("data", "reward", "scores"):
        build(stage, run, config)
    return run, config


def scored_by_ranks(folder: Path) -> None:
    scored(folder)
    served = predict(folder.parent / "orchestrator", TEXTS)
    np.savez(folder / "served.npz", weights=served.weights_NK, confidence=served.confidence_N)


def write_orchestrator(folder: Path) -> None:
    tokenizer = tiny.encoder_tokenizer()
    tiny.orchestrator(NAMES, tokenizer.get_vocab_size()).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process scores and predicts."""
    folder = tmp_path_factory.mktemp("scoring") / "alone"
    write_orchestrator(folder.parent / "orchestrator")
    folder.mkdir()
    scored_by_ranks(folder)
    return folder


def assert_same(one: list[ScoredResponse], two: list[ScoredResponse]) -> None:
    blank: dict[str, float] = {}
    assert [s.model_copy(update={"rewards": blank}) for s in one] == [
        s.model_copy(update={"rewards": blank}) for s in two
    ]
    assert len({s.rewards["funny"] for s in one}) > 50
    for name in NAMES:
        np.testing.assert_allclose(
            [s.rewards[name] for s in one], [s.rewards[name] for s in two], rtol=0, atol=1e-6
        )


def test_two_ranks_score_and_predict_what_one_does(alone: Path) -> None:
    folder = alone.parent / "ranks"
    with_ranks("test_ranks_scoring:scored_by_ranks", folder, processes=2)
    assert_same(read_scores(alone / "run" / "scores"), read_scores(folder / "run" / "scores"))
    one, two = np.load(alone / "served.npz"), np.load(folder / "served.npz")
    for name in ("weights", "confidence"):
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=1e-6)
    # The answers differ, so that a wrong order would show.
    assert len({round(value, 5) for value in one["weights"][:, 0]}) == len(TEXTS)


@pytest.mark.slow
def test_two_workers_of_ray_score_what_one_process_does(alone: Path) -> None:
    folder = alone.parent / "ray"
    run, _ = scored(folder, engine="ray", workers=2)
    assert_same(read_scores(alone / "run" / "scores"), read_scores(run.scores))
    # Who computes them is no part of what they are: the same run by other means is up to date.
    before = (run.scores / "manifest.json").stat().st_mtime_ns
    scored(folder)
    assert (run.scores / "manifest.json").stat().st_mtime_ns == before
    assert "engine" not in read_manifest(run.scores).config


def test_a_cluster_that_is_too_small_is_refused() -> None:
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        prompts = [small_world.make_prompt("joke")] * 3
        with pytest.raises(ValueError, match=r"scores\.workers is 3, the Ray cluster has 1 CPUs"):
            score_by_ray(lambda p, r: np.zeros(len(r)), prompts, ["a", "b", "c"], workers=3)
        assert ray.is_initialized()
    finally:
        ray.shutdown()


SLOW = """
import sys, time
from pathlib import Path
import numpy as np
import small_world
from preforch_training.reward.ray_scoring import score_by_ray
def slow(prompts, responses):
    Path(FILE).touch()
    time.sleep(60)
    return np.zeros(len(responses))
FILE = sys.argv[1]
score_by_ray(slow, [small_world.make_prompt("joke")] * 2, ["a", "b"], workers=2)
"""


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_of_ray(tmp_path: Path) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths, MARK: "ray"}
    command = [sys.executable, "-c", SLOW, str(tmp_path / "started")]
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(marked("ray")) > 3
        process.send_signal(signal.SIGKILL)
    # Agents of Ray look for the rest of it before they end by themselves.
    deadline = time.monotonic() + 150
    while marked("ray") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marked("ray") == []
