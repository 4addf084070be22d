"""Weights in context: what its rounds sample and keep, and what a kill leaves to redo."""

from pathlib import Path

import numpy as np
import policy_world
import pytest
from policy_world import SFT, make_config, wic
from preforch_models.manifest import verify
from preforch_training.config import RunConfig
from preforch_training.demo.assistant.world import ASSISTANT
from preforch_training.orchestrator.prediction import predict_weights
from preforch_training.policy.known_responses import any_above, known_responses, on_grid
from preforch_training.records import Sample, by_id, read_records
from preforch_training.run import Run
from preforch_training.scores.table import read_calibration, read_scores
from preforch_training.tuning.hf_trainer import TrainingError
from small_world import build


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One offline and one online round."""
    return build_policy(*policy_world.write_inputs(tmp_path_factory.mktemp("wic") / "run"))


def build_policy(run: Run, config: RunConfig) -> Run:
    build("policy", run, config, sampler=policy_world.ScriptedSampler())
    return run


def read_samples(run: Run) -> list[Sample]:
    return read_records(run.policy_round("wic", 1) / "samples.jsonl", Sample)


def test_the_samples_of_a_round_say_what_was_kept(built: Run) -> None:
    samples = read_samples(built)
    counts = verify(built.policy_round("wic", 1)).counts
    assert len(samples) == counts["samples"] == 18
    assert sum(s.kept for s in samples) == counts["kept"] > 0
    assert not any(s.kept for s in samples if s.response == "Let me think about it.")
    assert {s.origin for s in samples} == {"orchestrator", "random"}


def test_a_round_asks_what_the_orchestrator_recommends_for_each_prompt(built: Run) -> None:
    prompts = by_id(built.prompts())
    asked = [sample for sample in read_samples(built) if sample.origin == "orchestrator"]
    texts = [prompts[sample.prompt_id].text for sample in asked]
    recommended_NK = predict_weights(built.orchestrator, texts)
    assert np.abs(recommended_NK - 1 / recommended_NK.shape[1]).max() > 0.1, "uniform weights would pass"
    for sample, weights_K in zip(asked, recommended_NK, strict=True):
        assert sample.weights == on_grid(weights_K, built.context_format)


@pytest.mark.parametrize("source", ["constant", "random"])
def test_a_round_asks_what_the_config_says_in_the_place_of_f(tmp_path: Path, source: str) -> None:
    online = {"weights": source, "random_weight_share": 0.0}
    config = make_config(tmp_path / "run", policies={"wic": wic(online=online)})
    run, _ = policy_world.write_inputs(tmp_path / "run", config)
    samples = read_samples(build_policy(run, config))
    assert {sample.origin for sample in samples} == {source}
    asked = {tuple(sample.weights.values()) for sample in samples}
    assert len(asked) == {"constant": 1, "random": 6}[source]
    if source == "constant":
        assert asked == {tuple(policy_world.FALLBACK.values())}


def test_the_rewards_of_a_round_are_calibrated(built: Run) -> None:
    prompts, calibration = by_id(built.prompts()), read_calibration(built.scores)
    for sample in read_samples(built):
        raw = ASSISTANT.true_rewards(prompts[sample.prompt_id].text, sample.response)
        assert sample.rewards == pytest.approx(calibration.apply(raw))
        assert sample.rewards != pytest.approx(raw, abs=0.1), "raw rewards would pass"


def test_without_known_responses_a_round_learns_from_its_samples_alone(tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", policies={"wic": wic(online={"original_share": 0.0})})
    run = build_policy(*policy_world.write_inputs(tmp_path / "run", config))
    counts = verify(run.policy_round("wic", 1)).counts
    assert counts["originals"] == 0
    assert counts["rows"] == counts["kept"] > 0


def test_samples_survive_a_training_that_did_not_end(tmp_path: Path) -> None:
    unstable = SFT | {"learning_rate": 1e30}
    config = make_config(tmp_path / "run", policies={"wic": wic(online=unstable)})
    run, _ = policy_world.write_inputs(tmp_path / "run", config)
    sampler = policy_world.ScriptedSampler()
    for _ in range(2):
        with pytest.raises(TrainingError, match="at step"):
            build("policy", run, config, sampler=sampler)
    assert sampler.calls == 1
    assert not run.policy_round("wic", 1).exists()


def test_the_paper_preset_keeps_any_reward_above_its_quantile(tmp_path: Path) -> None:
    paper = wic(
        tau=0.1,
        quality_quantile=0.1,
        offline={"responses": "all"},
        online={"samples_per_prompt": 1, "keep": "any_above_quantile", "random_weight_share": 0.0},
    )
    config = make_config(tmp_path / "run", policies={"wic": paper})
    run = build_policy(*policy_world.write_inputs(tmp_path / "run", config))
    assert verify(run.policy_round("wic", 0)).counts["rows"] == 80
    samples = read_samples(run)
    assert len(samples) == 6
    assert {s.origin for s in samples} == {"orchestrator"}
    known = known_responses(read_scores(run.scores), read_calibration(run.scores), run.names, tau=0.1)
    rewards_NK = np.array([[s.rewards[name] for name in run.names] for s in samples])
    kept_N = any_above(rewards_NK, known, quantile=0.1)
    assert [s.kept for s in samples] == [
        bool(kept) and s.finished for kept, s in zip(kept_N, samples, strict=True)
    ]
    assert any(s.kept for s in samples)


def test_the_offline_round_alone_needs_no_table_for_online_ones(tmp_path: Path) -> None:
    offline = {key: value for key, value in wic(online_rounds=0).items() if key != "online"}
    config = make_config(tmp_path / "run", policies={"wic": offline})
    run = build_policy(*policy_world.write_inputs(tmp_path / "run", config))
    assert [path.name for path in (run.folder / "policy" / "wic").iterdir()] == ["round-0"]
