"""Whose weights the rewards of a prompt are weighed by."""

from typing import Any

import numpy as np
import policy_world
import pytest
from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.policy.weighting import distance_from_uniform, prompt_weights, with_random
from preforch_training.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return policy_world.write_inputs(tmp_path_factory.mktemp("weights") / "run")[0]


def weights_of(run: Run, source: Any) -> np.ndarray:
    return prompt_weights(run, source, run.prompts("train"), seed=1)


def predicted(run: Run) -> np.ndarray:
    return predict_weights(run.orchestrator, [prompt.text for prompt in run.prompts("train")])


def test_those_of_the_orchestrator(run: Run) -> None:
    np.testing.assert_array_equal(weights_of(run, "orchestrator"), predicted(run))
    np.testing.assert_array_equal(weights_of(run, "context"), predicted(run))
    assert np.ptp(predicted(run), axis=0).max() > 0


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("constant", [0.5, 0.2, 0.3]),
        ({"humor": 0.25, "helpful": 0.75}, [0.75, 0.0, 0.25]),
    ],
)
def test_the_same_for_every_prompt(run: Run, weights: Any, expected: list[float]) -> None:
    weights_NK = weights_of(run, weights)
    assert weights_NK.shape == (len(run.prompts("train")), 3)
    np.testing.assert_allclose(weights_NK, np.tile(expected, (len(weights_NK), 1)))


def test_shuffled_ones_are_those_of_other_prompts(run: Run) -> None:
    weights_NK, own_NK = weights_of(run, "shuffled"), predicted(run)
    np.testing.assert_allclose(np.sort(weights_NK, axis=0), np.sort(own_NK, axis=0))
    assert (weights_NK != own_NK).any(axis=1).mean() > 0.5


def test_a_prompt_that_comes_again_keeps_its_shuffled_weights(run: Run) -> None:
    prompts = run.prompts("train") * 2
    weights_NK = prompt_weights(run, "shuffled", prompts, seed=1)
    first_NK, second_NK = np.split(weights_NK, 2)
    np.testing.assert_array_equal(first_NK, second_NK)


def test_an_exact_share_of_the_prompts_has_random_weights() -> None:
    own_NK = np.tile([0.3, 0.7], (40, 1))
    weights_NK, random_N = with_random(own_NK, share=0.25, seed=1)
    assert random_N.sum() == 10
    np.testing.assert_array_equal(weights_NK[~random_N], own_NK[:30])
    assert len(np.unique(weights_NK[random_N], axis=0)) == 10
    np.testing.assert_allclose(weights_NK.sum(axis=1), 1.0)
    np.testing.assert_array_equal(with_random(own_NK, share=0.25, seed=1)[0], weights_NK)
    assert (with_random(own_NK, share=0.25, seed=2)[1] != random_N).any()
    assert not with_random(own_NK, share=0.0, seed=1)[1].any()
    assert with_random(own_NK, share=1.0, seed=1)[1].all()


def test_the_distance_from_uniform() -> None:
    assert distance_from_uniform(np.full((2, 4), 0.25)) == 0
    assert distance_from_uniform(np.array([[1.0, 0.0], [0.5, 0.5]])) == pytest.approx(0.25)
