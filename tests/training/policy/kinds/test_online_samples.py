"""What an online round samples and what it keeps."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from known_world import FORMAT, known
from preforch_models.conversation import Message
from preforch_training.policy.kinds.online_samples import (
    WeightedPrompt,
    fold_metrics,
    judge,
    sample_metrics,
    sample_rows,
    weighted,
)
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Prompt, Sample
from preforch_training.sampling.vllm import Generation


def prompt(name: str) -> Prompt:
    return Prompt(id=name, messages=(Message(role="user", content="x"),), split="train")


def generations(*finished: bool) -> list[Generation]:
    return [Generation(token_ids=(i,), text=str(i), finished=done) for i, done in enumerate(finished)]


def test_each_prompt_is_asked_with_its_weights_on_the_grid() -> None:
    weights_NK = np.array([[0.301, 0.699], [0.9, 0.1]])
    prompts, random_N = [prompt("p"), prompt("q")], np.array([False, True])
    asks = weighted(prompts, weights_NK, random_N, FORMAT, source="constant")
    assert asks == [
        WeightedPrompt(prompt("p"), {"a": 0.3, "b": 0.7}, "constant"),
        WeightedPrompt(prompt("q"), {"a": 0.9, "b": 0.1}, "random"),
    ]


def ask(name: str, a: float) -> WeightedPrompt:
    return WeightedPrompt(prompt(name), {"a": a, "b": 1 - a}, "orchestrator")


def kept_of(asks: list[WeightedPrompt], rewards_NK: np.ndarray, *, quantile: float = 0.7) -> list[bool]:
    """Two finished samples of each prompt."""
    groups = [generations(True, True)] * len(asks)
    found = judge(asks, groups, rewards_NK, known(), keep="best_by_weights", quantile=quantile)
    return [sample.kept for sample in found]


def test_the_best_finished_sample_under_the_asked_weights_is_kept() -> None:
    # Known of "p" under (1, 0): 0, 2, -3. The third has the best rewards but no end.
    rewards_NK = np.array([[2.1, -9.0], [2.2, -9.0], [9.0, 9.0]])
    samples = judge(
        [ask("p", 1.0)],
        [generations(True, True, False)],
        rewards_NK,
        known(),
        keep="best_by_weights",
        quantile=0.7,
    )
    assert [s.kept for s in samples] == [False, True, False]
    assert [s.finished for s in samples] == [True, True, False]
    assert samples[0].rewards == {"a": 2.1, "b": -9.0}


def test_a_sample_that_is_no_better_than_what_the_prompt_has_already_is_not_kept() -> None:
    # "p" has (0, 1), (2, 2) and (-3, -3), "q" has (0, 0); all others are better than the 0.3 quantile.
    rewards_NK = np.array([[1.9, 1.9], [1.5, 2.1], [0.1, 0.2], [0.0, 0.1]])
    assert kept_of([ask("p", 0.5), ask("q", 0.5)], rewards_NK, quantile=0.3) == [False, False, True, False]
    rewards_NK[1] = [2.1, 2.1]
    assert kept_of([ask("p", 0.5), ask("q", 0.5)], rewards_NK, quantile=0.3) == [False, True, True, False]


def test_a_prompt_of_which_nothing_is_known_is_measured_by_the_global_quantile() -> None:
    for reward, kept in ((2.0, True), (0.1, False)):
        rewards_NK = np.array([[reward, 0.0], [reward - 1, 0.0]])
        assert kept_of([ask("new", 1.0)], rewards_NK, quantile=0.9) == [kept, False]


def test_the_papers_filter_keeps_a_finished_sample_with_any_reward_above_its_own_quantile() -> None:
    # Known, by objective: -3, 0, 0, 2 and -3, 0, 1, 2; their 0.7 quantiles are 0.2 and 1.1.
    rewards_NK = np.array([[0.3, -9.0], [-9.0, 1.2], [0.1, 1.0], [9.0, 9.0]])
    samples = judge(
        [ask("p", 0.5)],
        [generations(True, True, True, False)],
        rewards_NK,
        known(),
        keep="any_above_quantile",
        quantile=0.7,
    )
    assert [s.kept for s in samples] == [True, True, False, False]


def sample(name: str, a: float, *, kept: bool = False, finished: bool = True) -> Sample:
    return Sample(
        prompt_id=name,
        weights={"a": 1.0, "b": 0.0},
        response="x",
        token_ids=(1,),
        finished=finished,
        rewards={"a": a, "b": 5.0},
        kept=kept,
        origin="orchestrator",
    )


def test_metrics_say_what_the_filter_did() -> None:
    # The best known responses under (1, 0): 2 of "p", 0 of "q"; of "new" nothing is known.
    samples = [
        sample("p", 1.0),
        sample("p", 1.5, kept=True),
        sample("q", 1.0, kept=True),
        sample("q", 9.0, finished=False),
        sample("new", 3.0, kept=True),
        sample("new", 2.0),
    ]
    assert sample_metrics(samples, known()) == pytest.approx(
        {
            "utility": 17.5 / 6,
            "utility_best": 5.5 / 3,
            "utility_kept": 5.5 / 3,
            "kept_samples": 3 / 6,
            "kept_prompts": 1.0,
            "below_best_known": 1 / 2,
            "gain_over_known": (1.5 - 2 + 1 - 0) / 2,
            "reward.a": 17.5 / 6,
            "reward.b": 5.0,
        }
    )


def test_nothing_kept_is_no_division_by_zero() -> None:
    metrics = sample_metrics([sample("p", 1.0, finished=False)], known())
    assert metrics["kept_prompts"] == metrics["gain_over_known"] == metrics["utility_best"] == 0


def test_the_difference_between_own_fold_and_full_rewards_is_measured() -> None:
    samples = [
        *(sample("q", reward) for reward in (0.5, 0.4)),
        *(sample("p", reward) for reward in (2.5, 0.0)),
        *(sample("new", reward) for reward in (9.0, 0.0)),
    ]
    full_NK = np.array([[0.5, 4.0], [0.6, 4.0], [2.5, 4.0], [0.2, 4.0], [9.1, 4.0], [0.1, 4.0]])
    found = fold_metrics(samples, full_NK, known(), keep="best_by_weights", quantile=0.7)
    # Of "q" the full models would keep the second.
    assert found == pytest.approx(
        {
            "own_fold.kept_changes": 1 / 3,
            "own_fold.a.mean": -0.1,
            "own_fold.a.sd": np.std([0, 0.2, 0, 0.2, 0.1, 0.1]),
            "own_fold.b.mean": 1.0,
            "own_fold.b.sd": 0.0,
        }
    )


def test_rows_are_the_kept_samples_after_their_prompt_with_the_asked_weights(tmp_path: Path) -> None:
    reader = PolicyTokenizer(tiny.write_policy(tmp_path, FORMAT))
    asked = prompt("p")
    dropped = Sample(
        prompt_id="p",
        weights={"a": 0.3, "b": 0.7},
        origin="orchestrator",
        response="no",
        token_ids=(4,),
        finished=True,
        rewards={"a": 0.0, "b": 0.0},
        kept=False,
    )
    kept = dropped.model_copy(update={"token_ids": (5, 6), "kept": True})
    (row,) = sample_rows([dropped, kept], {"p": asked}, reader)
    assert row.prompt == tuple(reader.prompt_ids(asked.messages, kept.weights))
    assert row.response == (5, 6)
