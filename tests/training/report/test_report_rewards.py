"""The part of the report about reward models, and the join of the score table."""

from dataclasses import replace

import numpy as np
import pytest
from preforch_models.calibration import Calibration, Constants
from preforch_training.records import PreferencePair, Prompt, ScoredResponse
from preforch_training.report.facts import Method, gather_facts
from preforch_training.report.reward import (
    collect_rewards,
    correlation_warnings,
    report_rewards,
)
from preforch_training.scores.pairs import pair_rewards
from report_world import BOOTSTRAP, NAMES, LinearTruth, calibrated, make_facts, read_response

CALIBRATION = Calibration(method="none", constants={name: Constants() for name in NAMES})
GOOD, BAD, WORSE = "3 1 0", "0 0 1", "0 -1 0"


def pair(prompt: Prompt, objective: str, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(
        id=f"{prompt.id}-{objective}-{rejected}",
        prompt_id=prompt.id,
        objective=objective,
        chosen=chosen,
        rejected=rejected,
        split=prompt.split,
    )


def scored(prompt: Prompt, pair_id: str, side: str, response: str) -> ScoredResponse:
    rewards = dict(zip(NAMES, read_response(response).tolist(), strict=True))
    return ScoredResponse.model_validate({
        "prompt_id": prompt.id, "pair_id": pair_id, "side": side, "response": response, "rewards": rewards,
        "fold": None, "split": prompt.split,
    })  # fmt: skip


def test_a_right_reward_model_agrees_with_the_labels_and_a_reversed_one_never() -> None:
    facts = make_facts()
    pairs = [pair(p, name, GOOD, BAD) for p in facts.prompts for name in ("helpful", "humor")]
    rewards = collect_rewards(facts.prompts, pairs, [], NAMES, calibrated)
    report = report_rewards(facts, pairs, rewards, CALIBRATION, LinearTruth(), BOOTSTRAP)
    found = {(entry.objective, entry.split): entry for entry in report.accuracies}
    assert found["helpful", "test_topic"].accuracy.value == 1.0
    # The humor labels are wrong: the model disagrees with them and agrees with the truth.
    assert found["humor", "test_topic"].accuracy.value == 0.0
    order = found["humor", "test_topic"].true_order
    assert order is not None
    assert order.value == 1.0


def test_training_pairs_are_judged_by_the_out_of_fold_scores_only() -> None:
    facts = make_facts()
    first, second = [prompt for prompt in facts.prompts if prompt.split == "train"][:2]
    pairs = [pair(prompt, "helpful", GOOD, BAD) for prompt in (first, second)]
    scores = [scored(first, "a", "chosen", GOOD), scored(first, "a", "rejected", BAD)]

    def refuse(prompts: object, responses: object) -> np.ndarray:
        raise AssertionError("no full model may score a training pair")

    rewards = collect_rewards(facts.prompts, pairs, scores, NAMES, refuse)
    (entry,) = report_rewards(facts, pairs, rewards, CALIBRATION, None, BOOTSTRAP).accuracies
    assert (entry.split, entry.pairs, entry.true_order) == ("train", 1, None)


def test_objectives_whose_margins_go_together_are_warned_about() -> None:
    facts = make_facts()
    doubled = facts.margin_NK.copy()
    doubled[:, 2] = 2 * doubled[:, 0]
    facts = replace(facts, margin_NK=doubled)
    report = report_rewards(facts, [], {}, CALIBRATION, None, BOOTSTRAP)
    assert report.correlations["helpful"]["humor"] == pytest.approx(1.0)
    (warning,) = correlation_warnings(report)
    assert "helpful and humor" in warning


def test_pair_rewards_average_the_other_known_responses() -> None:
    prompt = make_facts().prompts[0]
    scores = [
        scored(prompt, "a", "chosen", GOOD), scored(prompt, "a", "rejected", BAD),
        scored(prompt, "b", "chosen", GOOD), scored(prompt, "b", "rejected", WORSE),
    ]  # fmt: skip
    pairs = pair_rewards(scores, CALIBRATION, NAMES)
    assert pairs.chosen_NK.tolist() == [[3, 1, 0]] * 2
    assert pairs.rejected_NK.tolist() == [[0, 0, 1], [0, -1, 0]]
    assert pairs.others_NK.tolist() == [[0, -0.5, 0.5]] * 2
    facts = gather_facts(NAMES, [prompt], scores, CALIBRATION, Method("margin_softmax", 1.0, "reverse"), None)
    powers = np.exp([3.0, 1.0, -1.0])
    assert facts.target_NK[0] == pytest.approx(powers / powers.sum())
    assert facts.true_PK is None


@pytest.mark.parametrize(
    ("sides", "message"),
    [([("chosen", GOOD)], "only the side"), ([("chosen", GOOD), ("rejected", GOOD)], "to itself")],
)
def test_a_broken_pair_is_named(sides: list[tuple[str, str]], message: str) -> None:
    prompt = make_facts().prompts[0]
    scores = [scored(prompt, "pair-7", side, response) for side, response in sides]
    with pytest.raises(ValueError, match=f"'pair-7'.*{message}"):
        pair_rewards(scores, CALIBRATION, NAMES)
