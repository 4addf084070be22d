"""Which examples the policy learns from."""

import numpy as np
import pytest
from preforch_models.calibration import Calibration, Constants
from preforch_models.context import ContextFormat
from preforch_models.conversation import Message
from preforch_training.policy import wic
from preforch_training.records import Prompt, ScoredResponse, Side
from preforch_training.sampling.vllm import Generation

NAMES = ("a", "b")
FORM = ContextFormat(objectives=NAMES)
IDENTITY = Calibration(method="none", constants={name: Constants() for name in NAMES})


def scored(
    response: str, rewards: tuple[float, float], *, side: Side = "rejected", prompt: str = "p"
) -> ScoredResponse:
    return ScoredResponse(
        prompt_id=prompt,
        pair_id="pair",
        side=side,
        response=response,
        rewards=dict(zip(NAMES, rewards, strict=True)),
        fold=0,
        split="train",
    )


def known() -> wic.Known:
    """Chosen (0, 1); rejected (2, 2), (-3, -3), (0, 0)."""
    scores = [
        scored("chosen", (0, 1), side="chosen"),
        scored("good", (2, 2)),
        scored("bad", (-3, -3)),
        scored("chosen", (0, 1)),
        scored("plain", (0, 0), prompt="q"),
        scored("of a test", (9, 9)).model_copy(update={"split": "test"}),
    ]
    return wic.known_responses(scores, IDENTITY, NAMES, tau=1.0)


def prompt(name: str) -> Prompt:
    return Prompt(id=name, messages=(Message(role="user", content="x"),), split="train")


def generations(*finished: bool) -> list[Generation]:
    return [Generation(token_ids=(i,), text=str(i), finished=done) for i, done in enumerate(finished)]


def test_known_responses_are_distinct_training_responses_with_their_softmax_weights() -> None:
    assert known().responses == ("chosen", "good", "bad", "plain")
    assert known().chosen_N.tolist() == [True, False, False, False]
    np.testing.assert_allclose(known().weights_NK[0], [1 / (1 + np.e), np.e / (1 + np.e)])
    np.testing.assert_allclose(known().weights_NK[2], [0.5, 0.5])


def test_rewards_are_calibrated_by_name_whatever_the_order_of_the_constants() -> None:
    calibration = Calibration(
        method="none", constants={"b": Constants(offset=1.0), "a": Constants(scale=2.0)}
    )
    rewards = wic.known_responses([scored("y", (3, 5))], calibration, NAMES, tau=1.0).rewards_NK
    np.testing.assert_allclose(rewards, [[6.0, 4.0]])


def test_chosen_responses_and_those_of_quality_are_good() -> None:
    good_N = wic.good_responses(known(), keep="best_by_weights", quantile=0.7)
    assert good_N.tolist() == [True, True, False, False]


def test_the_filter_of_ric_needs_one_reward_above_its_quantile() -> None:
    rewards_NK = np.array([[2.5, -9.0], [-9.0, 2.5], [0.0, 0.0]])
    assert wic.any_above(rewards_NK, known(), quantile=0.7).tolist() == [True, True, False]


def test_the_share_of_random_weights_is_exact_and_the_others_are_predicted() -> None:
    prompts = [prompt(str(i)) for i in range(40)]
    predicted_NK = np.tile([0.301, 0.699], (40, 1))
    asks = wic.ask(prompts, predicted_NK, FORM, random_share=0.25, seed=0)
    assert sum(asked.origin == "dirichlet" for asked in asks) == 10
    assert all(asked.weights == {"a": 0.3, "b": 0.7} for asked in asks if asked.origin == "orchestrator")
    assert len({asked.weights["a"] for asked in asks if asked.origin == "dirichlet"}) > 5


def test_the_best_under_the_asked_weights_is_kept_if_it_beats_what_is_known() -> None:
    asks = [wic.Ask(prompt("q"), {"a": 1.0, "b": 0.0}, "orchestrator")] * 2
    rewards_NK = np.array([[0.5, -9.0], [0.4, 9.0], [9.0, 9.0], [-1.0, 9.0], [-0.5, 9.0], [9.0, 9.0]])
    groups = [generations(True, True, False)] * 2
    samples = wic.judge(asks, groups, rewards_NK, known(), keep="best_by_weights", quantile=0.7)
    # The third of each group has the best rewards but no end; the second prompt's best is worse than the known 0.
    assert [s.kept for s in samples] == [True, False, False, False, False, False]
    assert samples[0].rewards == {"a": 0.5, "b": -9.0}


def test_a_prompt_of_which_nothing_is_known_is_measured_by_the_global_quantile() -> None:
    asks = [wic.Ask(prompt("new"), {"a": 1.0, "b": 0.0}, "dirichlet")]
    for reward, kept in ((2.0, True), (0.1, False)):
        rewards_NK = np.array([[reward, 0.0]])
        samples = wic.judge(
            asks, [generations(True)], rewards_NK, known(), keep="best_by_weights", quantile=0.9
        )
        assert samples[0].kept is kept


def test_originals_make_up_their_share() -> None:
    good_N = np.array([False] + [True] * 50)
    picked = wic.originals(good_N, fresh=30, share=0.25, seed=0)
    assert len(picked) == len(set(picked)) == 10
    assert 0 not in picked
    assert wic.originals(good_N, fresh=30, share=0.0, seed=0) == []


def test_without_training_scores_there_is_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="no scored responses"):
        wic.known_responses([], IDENTITY, NAMES, tau=1.0)
