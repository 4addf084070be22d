"""Objectives that are not in alphabetical order: at every step a number belongs to its name."""

from pathlib import Path

import numpy as np
import pytest
from preforch_models.context import ContextFormat
from preforch_training.bundle.stage import golden_answers
from preforch_training.orchestrator.artifact import read_orchestrator_info
from preforch_training.orchestrator.prediction import Served, predict_weights
from preforch_training.pipeline import open_run
from preforch_training.policy.known_responses import on_grid
from preforch_training.run import Run
from preforch_training.scores.calibration import CalibratedRewards
from preforch_training.scores.table import read_calibration, read_scores
from small_world import FUNNY, SAFE, build, make_config, make_prompt, pair_rows, write_rows

NAMES = ("safe", "funny")


@pytest.fixture(scope="module")
def run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The toy world with more jokes than dangers, up to its orchestrator; the encoder stays as it is."""
    folder = tmp_path_factory.mktemp("order")
    rows = [row for row in pair_rows() if row["prompt"].startswith("joke") or row["prompt"].endswith("two")]
    write_rows(folder / "pairs.jsonl", rows)
    config = make_config(
        folder,
        objectives=[{"name": name} for name in NAMES],
        orchestrator={"encoder": str(encoder), "train_encoder": False},
    )
    run = open_run(config)
    for stage in ("data", "reward", "scores", "orchestrator"):
        build(stage, run, config)
    return run


def test_alphabetical_order_would_show() -> None:
    assert list(NAMES) != sorted(NAMES)


def test_scores_name_the_reward_that_gave_them(run: Run) -> None:
    for scored in read_scores(run.scores):
        assert scored.rewards == {
            "funny": float(scored.response == FUNNY),
            "safe": float(scored.response == SAFE),
        }


def test_calibrated_rewards_are_in_the_order_of_the_run(run: Run) -> None:
    assert tuple(read_calibration(run.scores).constants) == NAMES
    rewards_NK = CalibratedRewards(run)([make_prompt("a")] * 2, [FUNNY, SAFE])
    assert rewards_NK.argmax(axis=1).tolist() == [NAMES.index("funny"), NAMES.index("safe")]


def test_the_fallback_prefers_what_most_prompts_want(run: Run) -> None:
    found = read_orchestrator_info(run.orchestrator)
    for weights in (found.fallback, found.mean_weights):
        assert weights["funny"] > 0.6 > weights["safe"]


def test_what_is_recommended_for_a_joke_prefers_funny(run: Run) -> None:
    weights_NK = predict_weights(run.orchestrator, ["joke about dog one", "joke about lamp three"])
    assert weights_NK[:, NAMES.index("funny")].mean() > 0.7


def test_golden_answers_of_a_bundle_have_the_names_of_their_columns() -> None:
    served = Served(np.array([[0.7, 0.3]]), np.array([1.0]))
    (golden,) = golden_answers([make_prompt("a")], served, NAMES)
    assert golden.weights == {"safe": 0.7, "funny": 0.3}


def test_the_context_gives_a_row_of_weights_its_names_in_the_order_of_the_objectives() -> None:
    weights = on_grid(np.array([0.701, 0.299]), ContextFormat(objectives=NAMES))
    assert list(weights.items()) == [("safe", 0.7), ("funny", 0.3)]
