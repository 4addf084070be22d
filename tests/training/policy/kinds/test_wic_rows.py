"""What the rounds of weights in context ask the sampler for, and the rows they train on, untrained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import policy_world
import pytest
from policy_world import make_config, wic
from preforch_models.conditioning import Conditioning
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.weights import round_weights
from preforch_training.config import RunConfig
from preforch_training.policy.fine_tuning import TokenRow
from preforch_training.policy.kinds.wic import make_offline, make_online
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.policy.settings.wic import WicPolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.records import Sample, by_id, read_records
from preforch_training.run import Outcome, Run
from preforch_training.sampling.vllm import Generation, SampleRequest
from preforch_training.scores.table import read_calibration, read_scores
from small_world import build

TAU = 0.5


@dataclass(frozen=True)
class Trained:
    """What one round gave to the training."""

    number: int
    rows: Sequence[TokenRow]
    settings: FineTuning
    kind: str
    conditioning: Conditioning
    folder: Path
    work: Path


@dataclass(frozen=True)
class WithoutTraining(PolicyTask):
    """A task whose every round is the base policy, and whose training only takes note of its rows."""

    trained: list[Trained] = field(default_factory=list)

    def round(self, number: int) -> Path:
        return self.run.policy_base

    def train(self, number: int, rows: Sequence[TokenRow], settings: FineTuning, **options: Any) -> Outcome:
        self.trained.append(Trained(number, rows, settings, **options))
        return Outcome(counts={"rows": len(rows)}, metrics={"loss": 2.5})


class NotingSampler(policy_world.ScriptedSampler):
    """Remembers what it was asked."""

    peak_memory_mib = 77.0

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Path, Sequence[SampleRequest], Mapping[str, float]]] = []

    def sample(
        self, policy: Path, requests: Sequence[SampleRequest], **settings: Any
    ) -> list[list[Generation]]:
        self.asked.append((policy, requests, settings))
        return super().sample(policy, requests, **settings)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run up to its base policy. The tau of its orchestrator is 1."""
    folder = tmp_path_factory.mktemp("rows") / "run"
    run, config = policy_world.write_inputs(folder, make_config(folder))
    assert config.orchestrator.tau != TAU
    build("policy", run, config.model_copy(update={"policies": {}}))
    return run


@dataclass(frozen=True)
class Round:
    """One round that was made."""

    task: WithoutTraining
    policy: WicPolicy
    sampler: NotingSampler
    outcome: Outcome
    folder: Path

    @property
    def trained(self) -> Trained:
        (only,) = self.task.trained
        return only

    @property
    def samples(self) -> list[Sample]:
        return read_records(self.folder / "samples.jsonl", Sample)


def make_round(
    run: Run, folder: Path, number: int, *, shared: Mapping[str, Any] | None = None, **settings: Any
) -> Round:
    config = make_config(run.folder, shared=shared, policies={"wic": wic(**{"tau": TAU, **settings})})
    return _made(run, config, folder, number)


def _made(run: Run, config: RunConfig, folder: Path, number: int) -> Round:
    policy, sampler = config.policies["wic"], NotingSampler()
    assert isinstance(policy, WicPolicy)
    assert policy.online is not None
    assert config.policy is not None
    task = WithoutTraining(run, config.policy, "wic", sampler)
    (folder / "out").mkdir()
    (folder / "work").mkdir()
    if number == 0:
        outcome = make_offline(task, policy, folder / "out", folder / "work")
    else:
        outcome = make_online(task, policy, policy.online, number, folder / "out", folder / "work")
    return Round(task, policy, sampler, outcome, folder / "out")


def known_by_hand(run: Run) -> list[tuple[str, str, bool, float, TokenRow]]:
    """Every distinct training response: prompt, text, whether ever chosen, w.r and its row, by Eq. 7."""
    constants = read_calibration(run.scores).constants
    reader, prompts = PolicyTokenizer(run.policy_base), by_id(run.prompts())
    scores = [score for score in read_scores(run.scores) if score.split == "train"]
    chosen = {(score.prompt_id, score.response) for score in scores if score.side == "chosen"}
    found = {}
    for score in scores:
        rewards = np.array(
            [(score.rewards[name] - constants[name].offset) * constants[name].scale for name in run.names]
        )
        weights = np.exp(rewards / TAU) / np.exp(rewards / TAU).sum()
        named = round_weights(dict(zip(run.names, weights.tolist(), strict=True)), 20)
        key = (score.prompt_id, score.response)
        row = TokenRow(
            tuple(reader.prompt_ids(prompts[score.prompt_id].messages, named)),
            tuple(reader.response_ids(score.response)),
        )
        found[key] = (*key, key in chosen, float(weights @ rewards), row)
    return list(found.values())


# Round 0.


def test_offline_rows_have_weights_of_eq_7_with_the_tau_of_the_policy_not_of_the_orchestrator(
    inputs: Run, tmp_path: Path
) -> None:
    made = make_round(inputs, tmp_path, 0, offline={"responses": "all"})
    assert made.trained.number == 0
    assert Counter(made.trained.rows) == Counter(row for *_, row in known_by_hand(inputs))
    assert made.trained.settings == made.policy.offline
    assert made.trained.kind == "wic"
    assert made.trained.conditioning == ContextConditioning(encoding="levels")
    assert (made.trained.folder, made.trained.work) == (tmp_path / "out", tmp_path / "work")


def test_the_filter_leaves_chosen_responses_and_those_of_high_utility(inputs: Run, tmp_path: Path) -> None:
    made = make_round(inputs, tmp_path, 0, quality_quantile=0.9)
    known = known_by_hand(inputs)
    limit = np.quantile([utility for *_, utility, _ in known], 0.9)
    kept = [row for _, _, chosen, utility, row in known if chosen or utility > limit]
    assert Counter(made.trained.rows) == Counter(kept)
    assert any(not chosen and utility > limit for _, _, chosen, utility, _ in known)
    assert len(kept) < len(known)


# Online rounds.


@pytest.fixture(scope="module")
def online(inputs: Run, tmp_path_factory: pytest.TempPathFactory) -> Round:
    """Round 1, half of whose prompts get random weights."""
    return make_round(
        inputs,
        tmp_path_factory.mktemp("round"),
        1,
        shared={"temperature": 0.6, "top_p": 0.8},
        online={"prompts": 8},
        quality_quantile=0.2,
    )


def test_a_round_asks_the_policy_before_it_as_the_config_says(inputs: Run, online: Round) -> None:
    ((policy, requests, settings),) = online.sampler.asked
    assert policy == inputs.policy_base
    assert settings == {"temperature": 0.6, "top_p": 0.8, "max_tokens": 32}
    assert len(requests) == 8
    assert {request.n for request in requests} == {3}
    assert len({request.seed for request in requests}) == 8


def test_every_request_shows_the_weights_of_its_samples(inputs: Run, online: Round) -> None:
    (_, requests, _) = online.sampler.asked[0]
    prompts = by_id(inputs.prompts())
    asked = [(request.messages, request.weights) for request in requests for _ in range(request.n)]
    assert [(prompts[s.prompt_id].messages, s.weights) for s in online.samples] == asked
    assert Counter(sample.origin for sample in online.samples) == {"orchestrator": 12, "random": 12}


def test_samples_carry_calibrated_rewards_each_under_its_name(inputs: Run, online: Round) -> None:
    prompts, constants = by_id(inputs.prompts()), read_calibration(inputs.scores).constants
    functions = {name: getattr(policy_world, name) for name in inputs.names}
    assert len({(c.offset, c.scale) for c in constants.values()}) == len(constants)
    for sample in online.samples:
        raw = {
            name: f([prompts[sample.prompt_id].text], [sample.response])[0] for name, f in functions.items()
        }
        expected = {name: (raw[name] - c.offset) * c.scale for name, c in constants.items()}
        assert sample.rewards == pytest.approx(expected)


def test_a_round_trains_on_what_it_kept_in_the_samplers_tokens_and_on_known_responses(
    inputs: Run, online: Round
) -> None:
    reader, prompts = PolicyTokenizer(inputs.policy_base), by_id(inputs.prompts())
    kept = [
        TokenRow(tuple(reader.prompt_ids(prompts[s.prompt_id].messages, s.weights)), s.token_ids)
        for s in online.samples
        if s.kept
    ]
    rows = list(online.trained.rows)
    assert rows[: len(kept)] == kept
    # Half of the rows are known ones, unless the share says otherwise.
    mixed = rows[len(kept) :]
    assert len(mixed) == len(kept) > 1
    assert set(mixed) <= {row for *_, row in known_by_hand(inputs)}
    assert online.outcome.counts == {
        "rows": len(rows),
        "samples": 24,
        "kept": len(kept),
        "originals": len(mixed),
    }


def test_a_round_says_how_it_was_trained_and_what_it_used(online: Round) -> None:
    trained = online.trained
    assert (trained.number, trained.settings, trained.kind) == (1, online.policy.online, "wic")
    assert trained.conditioning == ContextConditioning(encoding="levels")
    assert (trained.folder.name, trained.work.name) == ("out", "work")
    assert online.outcome.metrics["loss"] == 2.5
    assert set(online.outcome.metrics) > {"utility", "utility_best", "utility_kept", "reward.humor"}
    assert online.outcome.peak_memory_mib == 77.0


def test_known_responses_are_filtered_as_samples_are(inputs: Run, tmp_path: Path) -> None:
    keep = {"keep": "any_above_quantile", "original_share": 0.9}
    made = make_round(inputs, tmp_path, 1, online=keep, quality_quantile=0.95)
    scores = {(s.prompt_id, s.response): s.rewards for s in read_scores(inputs.scores) if s.split == "train"}
    limits = {name: np.quantile([r[name] for r in scores.values()], 0.95) for name in inputs.names}
    good = {key for key, rewards in scores.items() if any(rewards[n] > limits[n] for n in inputs.names)}
    kept = sum(sample.kept for sample in made.samples)
    allowed = {row for prompt, response, *_, row in known_by_hand(inputs) if (prompt, response) in good}
    assert 0 < len(good) < len(scores)
    assert set(made.trained.rows[kept:]) <= allowed


def test_rounds_draw_other_prompts_other_weights_and_other_seeds(inputs: Run, tmp_path: Path) -> None:
    random = {"random_weight_share": 1.0}
    asked = []
    for place, number in enumerate((1, 2, 1)):
        (folder := tmp_path / str(place)).mkdir()
        asked.append(make_round(inputs, folder, number, online=random).sampler.asked[0][1])
    first, second, again = asked
    assert first == again
    assert [request.messages for request in first] != [request.messages for request in second]
    assert not {request.seed for request in first} & {request.seed for request in second}
    assert not {tuple(r.weights.values()) for r in first} & {tuple(r.weights.values()) for r in second}


def test_samples_that_are_there_already_are_not_drawn_again(inputs: Run, tmp_path: Path) -> None:
    made = make_round(inputs, tmp_path, 1)
    assert made.policy.online is not None
    (tmp_path / "again").mkdir()
    make_online(made.task, made.policy, made.policy.online, 1, tmp_path / "again", tmp_path / "work")
    assert len(made.sampler.asked) == 1
    assert read_records(tmp_path / "again" / "samples.jsonl", Sample) == made.samples


def test_prompts_that_leave_no_room_for_a_response_are_not_asked(inputs: Run) -> None:
    reader = PolicyTokenizer(inputs.policy_base)
    config = make_config(inputs.folder, shared={"max_response_tokens": 200})
    assert config.policy is not None
    task = WithoutTraining(inputs, config.policy, "wic", NotingSampler())
    lengths = {
        prompt.id: len(reader.prompt_ids(prompt.messages, {"helpful": 1.0, "harmless": 0.0, "humor": 0.0}))
        for prompt in inputs.prompts("train")
    }
    limit = sorted(lengths.values())[len(lengths) // 2]
    reader.card = reader.card.model_copy(update={"max_model_len": 200 + limit})
    found = task.prompts_with_room(reader, seed=1)
    assert {prompt.id for prompt in found} == {id_ for id_, length in lengths.items() if length <= limit}
    assert 0 < len(found) < len(lengths)
    reader.card = reader.card.model_copy(update={"max_model_len": 201})
    with pytest.raises(ValueError, match="no training prompt leaves room for 200 response tokens"):
        task.prompts_with_room(reader, seed=1)
