"""Rewards in context: rows under the scores that responses have, rounds under desired ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import policy_world
import pytest
from known_world import known
from policy_world import SFT, ric
from preforch_models.conditioning.scores import ScoresConditioning
from preforch_models.manifest import read_manifest, verify
from preforch_models.policy_card import check_control_strings, read_policy_card
from preforch_training.policy.kinds.ric import (
    ScoredSample,
    desired_scores,
    known_rows,
    passing,
    sample_rows,
    score_format,
)
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import read_records
from preforch_training.sampling.vllm import Generation, SampleRequest
from preforch_training.scores.calibration import CalibratedRewards
from pydantic import ValidationError
from small_world import build


class NotingSampler(policy_world.ScriptedSampler):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[SampleRequest] = []

    def sample(
        self, policy: Path, requests: Sequence[SampleRequest], **settings: Any
    ) -> list[list[Generation]]:
        self.requests += requests
        return super().sample(policy, requests, **settings)


@pytest.fixture(scope="module")
def sampler() -> NotingSampler:
    return NotingSampler()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, sampler: NotingSampler) -> PolicyTask:
    """A run with an offline and an online round."""
    folder = tmp_path_factory.mktemp("ric") / "run"
    config = policy_world.make_config(folder, policies={"ric": ric(quality_quantile=0.1)})
    run, _ = policy_world.write_inputs(folder, config)
    build("policy", run, config, sampler=sampler)
    assert config.policy is not None
    return PolicyTask(run, config.policy, "ric", sampler, config.policies)


def test_its_card_says_between_which_scores_weights_choose(task: PolicyTask) -> None:
    rewards_NK = task.known(tau=1.0).rewards_NK
    for number in (0, 1):
        card = read_policy_card(task.round(number))
        check_control_strings(task.round(number), card)
        assert isinstance(card.conditioning, ScoresConditioning)
        np.testing.assert_allclose(card.conditioning.low, rewards_NK.min(axis=0), atol=0.05)
        np.testing.assert_allclose(card.conditioning.high, rewards_NK.max(axis=0), atol=0.05)
        assert "<R1>" in card.control_strings
        # Tokens of other policies' contexts stay out of a user's reach as well.
        assert "<W1>" in card.control_strings


def test_every_known_response_is_a_row_under_the_scores_that_it_has(task: PolicyTask) -> None:
    everything, reader = task.known(tau=1.0), PolicyTokenizer(task.round(0))
    rows = known_rows(everything, range(len(everything.responses)), task.prompts(), reader)
    assert verify(task.round(0), kind="policy").counts["rows"] == len(rows) == len(everything.responses)
    assert not everything.chosen_N.all()
    for i in (0, 1, len(rows) - 1):
        prompt = task.prompts()[everything.prompt_ids[i]].text
        scores = " ".join(
            f"<R{k + 1}> {round(value * 10) / 10 + 0.0:.1f}"
            for k, value in enumerate(everything.rewards_NK[i])
        )
        expected = f"<|im_start|>user\n{prompt} {scores}<|im_end|>\n<|im_start|>assistant\n"
        assert reader.text(rows[i].prompt) == expected
        assert reader.text(rows[i].response) == everything.responses[i]


def test_a_request_writes_what_the_chat_template_makes_of_weights(task: PolicyTask) -> None:
    """What the gateway serves and what the training wrote are the same tokens."""
    reader = PolicyTokenizer(task.round(1))
    weights = {"helpful": 0.2, "harmless": 0.5, "humor": 0.3}
    messages = task.run.prompts("train")[0].messages
    written = score_format(reader).written(weights)
    assert reader.prompt_ids(messages, weights) == reader.written_ids(messages, written)
    assert f"<R2> {written[1]}" in reader.text(reader.prompt_ids(messages, weights))


def test_a_round_asks_for_all_at_the_top_but_one(task: PolicyTask, sampler: NotingSampler) -> None:
    context = score_format(PolicyTokenizer(task.round(0)))
    top = context.write_scores(list(context.high))
    assert len(sampler.requests) == 6
    for request in sampler.requests:
        assert request.written is not None
        assert request.n == 1
        below = [score for score, high in zip(request.written, top, strict=True) if score != high]
        assert len(below) <= 1
    assert len({request.written for request in sampler.requests}) > 1
    assert sampler.policies == [task.round(0)]


def test_what_was_kept_is_trained_on_under_what_it_obtained(task: PolicyTask) -> None:
    samples = read_records(task.round(1) / "samples.jsonl", ScoredSample)
    prompts, reader = task.prompts(), PolicyTokenizer(task.round(0))
    rewards_NK = CalibratedRewards(task.run)(
        [prompts[s.prompt_id] for s in samples], [s.response for s in samples]
    )
    np.testing.assert_allclose([sample.rewards for sample in samples], rewards_NK)
    kept = [sample for sample in samples if sample.kept]
    counts = read_manifest(task.round(1)).counts
    assert counts["samples"] == len(samples) == 6
    assert counts["kept"] == len(kept) > 0
    assert counts["rows"] == counts["kept"] + counts["originals"]
    (row, *_) = sample_rows(kept, prompts, reader)
    obtained = score_format(reader).write_scores(list(kept[0].rewards))
    assert row.prompt == tuple(reader.written_ids(prompts[kept[0].prompt_id].messages, obtained))
    assert obtained != kept[0].desired
    assert row.response == kept[0].token_ids


def test_desired_scores_leave_the_lowest_draw_where_it_is(task: PolicyTask) -> None:
    context = score_format(PolicyTokenizer(task.round(0)))
    scores_NK = desired_scores(context, 400, seed=1)
    high_K, low_K = np.array(context.high), np.array(context.low)
    below_NK = scores_NK < high_K - 1e-9
    assert (below_NK.sum(axis=1) == 1).all()
    np.testing.assert_allclose(below_NK.mean(axis=0), 1 / 3, atol=0.1)
    assert (scores_NK >= low_K).all()
    # The least of three uniform shares is a quarter on average.
    shares = ((scores_NK - low_K) / (high_K - low_K))[below_NK]
    assert shares.mean() == pytest.approx(0.25, abs=0.04)


def test_room_is_left_for_the_longest_scores(task: PolicyTask) -> None:
    reader = PolicyTokenizer(task.round(0))
    messages, context = task.run.prompts("train")[0].messages, score_format(reader)
    # Two digits and a sign, in a policy that writes digits.
    wide = context.model_copy(update={"low": (-12.5,) * 3, "high": (1.0,) * 3, "encoding": "digits"})
    assert wide.longest == (("-12.5",) * 3, ("1.0",) * 3)
    conditioning = reader.card.conditioning.model_copy(update={"low": wide.low, "high": wide.high})
    reader.card = reader.card.model_copy(update={"conditioning": conditioning})
    length = len(reader.written_ids(messages, wide.longest[0]))
    assert length > len(reader.written_ids(messages, wide.longest[1]))
    limit = reader.card.max_model_len - length
    assert reader.has_room(messages, response_tokens=limit)
    assert not reader.has_room(messages, response_tokens=limit + 1)


def test_filters() -> None:
    """Of four known responses the 0.5-quantiles are 1 and 0, that of the means 0.5."""
    world = known()
    median_K = np.quantile(world.rewards_NK, 0.5, axis=0)
    mean = float(np.quantile(world.rewards_NK.mean(axis=1), 0.5))
    rewards_NK = np.array([median_K + 0.1, median_K - 0.1, [median_K[0] + 0.1, -99.0], [mean + 0.1] * 2])
    found = passing(rewards_NK, world, keep="any_above_quantile", quantile=0.5)
    assert found.tolist()[:3] == [True, False, True]
    selected = passing(rewards_NK, world, keep="mean_above_quantile", quantile=0.5)
    assert selected.tolist()[2:] == [False, True]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"kind": "ric", "offline": SFT}, "online_rounds is 2, but there is no table `online`"),
        (ric(mapping="l1"), "'l2' or 'linf'"),
        (ric(online={"keep": "all"}), "'any_above_quantile' or 'mean_above_quantile'"),
    ],
)
def test_settings_that_cannot_work_are_named(tmp_path: Path, policy: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        policy_world.make_config(tmp_path, policies={"ric": policy})
