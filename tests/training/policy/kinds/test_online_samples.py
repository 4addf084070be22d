"""What an online round samples and what it keeps."""

import numpy as np
from known_world import FORMAT, known
from preforch_models.conversation import Message
from preforch_training.policy.kinds.online_samples import WeightedPrompt, draw_weights, judge
from preforch_training.records import Prompt
from preforch_training.sampling.vllm import Generation


def prompt(name: str) -> Prompt:
    return Prompt(id=name, messages=(Message(role="user", content="x"),), split="train")


def generations(*finished: bool) -> list[Generation]:
    return [Generation(token_ids=(i,), text=str(i), finished=done) for i, done in enumerate(finished)]


def test_the_share_of_random_weights_is_exact_and_the_others_are_predicted() -> None:
    prompts = [prompt(str(i)) for i in range(40)]
    predicted_NK = np.tile([0.301, 0.699], (40, 1))
    asks = draw_weights(prompts, predicted_NK, FORMAT, random_share=0.25, seed=0)
    assert sum(asked.origin == "dirichlet" for asked in asks) == 10
    assert all(asked.weights == {"a": 0.3, "b": 0.7} for asked in asks if asked.origin == "orchestrator")
    assert len({asked.weights["a"] for asked in asks if asked.origin == "dirichlet"}) > 5


def test_the_best_under_the_asked_weights_is_kept_if_it_beats_what_is_known() -> None:
    asks = [WeightedPrompt(prompt("q"), {"a": 1.0, "b": 0.0}, "orchestrator")] * 2
    rewards_NK = np.array([[0.5, -9.0], [0.4, 9.0], [9.0, 9.0], [-1.0, 9.0], [-0.5, 9.0], [9.0, 9.0]])
    groups = [generations(True, True, False)] * 2
    samples = judge(asks, groups, rewards_NK, known(), keep="best_by_weights", quantile=0.7)
    # The third of each group has the best rewards but no end; the second prompt's best is below the known 0.
    assert [s.kept for s in samples] == [True, False, False, False, False, False]
    assert samples[0].rewards == {"a": 0.5, "b": -9.0}


def test_a_prompt_of_which_nothing_is_known_is_measured_by_the_global_quantile() -> None:
    asks = [WeightedPrompt(prompt("new"), {"a": 1.0, "b": 0.0}, "dirichlet")]
    for reward, kept in ((2.0, True), (0.1, False)):
        rewards_NK = np.array([[reward, 0.0]])
        samples = judge(asks, [generations(True)], rewards_NK, known(), keep="best_by_weights", quantile=0.9)
        assert samples[0].kept is kept
