"""Controllable preference optimisation: which of two responses is better depends on the desired scores."""

from pathlib import Path
from typing import Any

import numpy as np
import policy_world
import pytest
from known_world import IDENTITY, NAMES, known, scored
from policy_world import cpo, ric, sft
from preforch_models.conditioning.scores import ScoresConditioning
from preforch_models.manifest import digest, read_manifest, verify
from preforch_models.policy_card import read_policy_card
from preforch_models.score_format import ScoreFormat
from preforch_training.policy.kinds.cpo import desired_scores, known_pairs, preferred_rows, values
from preforch_training.policy.known_responses import known_responses
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from pydantic import ValidationError
from small_world import NoSampler, build

TOP = 2.0


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> PolicyTask:
    """A run whose policy `cpo` is built."""
    folder = tmp_path_factory.mktemp("cpo") / "run"
    policies = {"ric": ric(online_rounds=0), "cpo": cpo(draws=2)}
    config = policy_world.make_config(folder, policies=policies, serve="cpo")
    run, _ = policy_world.write_inputs(folder, config)
    build("policy", run, config)
    assert config.policy is not None
    return PolicyTask(run, config.policy, "cpo", NoSampler(), config.policies)


def test_the_value_is_nearness_of_conditioned_and_height_of_free_objectives() -> None:
    """Of two responses, with one objective free: the difference of -|p - r| and of r, to 1e-5."""
    one, other = np.array([[0.3, 1.4]]), np.array([[1.9, -0.5]])
    for wanted in (-1.0, 0.4, 1.9):
        desired = np.array([[wanted, TOP]])
        found = values(desired, one) - values(desired, other)
        expected = -abs(wanted - 0.3) + abs(wanted - 1.9) + 1.4 - -0.5
        np.testing.assert_allclose(found, [expected], atol=1e-5)
    everything_free = np.array([[TOP, TOP]])
    found = values(everything_free, one) - values(everything_free, other)
    np.testing.assert_allclose(found, [(0.3 + 1.4) - (1.9 - 0.5)], atol=1e-5)


def test_every_two_responses_to_a_prompt_are_compared() -> None:
    found = known()
    pairs = [tuple(found.responses[i] for i in pair) for pair in known_pairs(found)]
    assert pairs == [("chosen", "good"), ("chosen", "bad"), ("good", "bad")]
    alone = known_responses([scored("a", (0, 0)), scored("b", (1, 1), prompt="q")], IDENTITY, NAMES, tau=1.0)
    with pytest.raises(ValueError, match="none of 2 training prompts has two known responses"):
        known_pairs(alone)


def test_desired_scores_are_at_the_top_or_anywhere_in_the_range() -> None:
    context = ScoreFormat(objectives=NAMES, mapping="l2", low=(-1.0, 0.0), high=(2.0, 0.5))
    found_NK = np.array(desired_scores(context, 2000, free_share=0.25, seed=1), dtype=float)
    assert (found_NK >= context.low).all()
    assert (found_NK <= context.high).all()
    # Of those that are drawn a sixtieth rounds to the top, of the narrower range a tenth.
    at_top_K = (found_NK == context.high).mean(axis=0)
    np.testing.assert_allclose(at_top_K, [0.25 + 0.75 / 60, 0.25 + 0.75 / 10], atol=0.03)
    assert abs(np.median(found_NK[found_NK[:, 0] < TOP, 0]) - 0.5) < 0.15
    assert desired_scores(context, 3, free_share=1.0, seed=1) == [("2.0", "0.5")] * 3


def test_what_is_better_is_what_was_asked_for(task: PolicyTask) -> None:
    reader, prompts, known = PolicyTokenizer(task.start("ric")), task.prompts(), task.known(tau=1.0)
    pair = known_pairs(known)[0]
    one, other = known.rewards_NK[pair]
    context = reader.card.context_format
    assert isinstance(context, ScoreFormat)
    asked = [context.write_scores(one.tolist()), context.write_scores(other.tolist())]
    assert asked[0] != asked[1]
    rows = preferred_rows(known, np.array([pair, pair]), asked, prompts, reader)
    texts = [known.responses[i] for i in pair]
    assert [reader.text(row.chosen) for row in rows] == texts
    assert [reader.text(row.rejected) for row in rows] == texts[::-1]
    messages = prompts[known.prompt_ids[pair[0]]].messages
    assert [list(row.prompt) for row in rows] == [reader.written_ids(messages, each) for each in asked]
    # Two that come as near teach nothing.
    assert preferred_rows(known, np.array([[pair[0], pair[0]]]), asked[:1], prompts, reader) == []


def test_it_goes_on_from_a_policy_that_reads_scores_and_reads_them_alike(task: PolicyTask) -> None:
    manifest, start = verify(task.round(0), kind="policy"), task.start("ric/round-0")
    assert manifest.inputs["previous"] == digest(read_manifest(start).files)
    card = read_policy_card(task.round(0))
    assert isinstance(card.conditioning, ScoresConditioning)
    assert card.conditioning == read_policy_card(start).conditioning
    assert sum(manifest.counts.values()) == 2 * len(known_pairs(task.known(tau=1.0)))
    assert manifest.counts["pairs"] > manifest.counts["as_near"]
    assert 0 < manifest.metrics["loss"] < 1


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"cpo": cpo(start="base")}, r"start is 'base', which reads no scores: allowed is .*'ric'"),
        ({"plain": sft(), "cpo": cpo(start="plain")}, r"policies\.cpo\.start is 'plain'; allowed are"),
        ({"cpo": cpo(draws=0)}, "draws"),
    ],
)
def test_settings_that_cannot_work_are_named(policies: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        policy_world.make_config(tmp_path, policies=policies, serve="cpo")
