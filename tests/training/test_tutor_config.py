"""`tutor.toml`, run whole at tiny size on the world of word problems, with a scripted sampler."""

from pathlib import Path

import policy_world
import small_world
import solved
from preforch_models.bundle import read_bundle
from preforch_models.policy_card import check_match, read_policy_card
from preforch_models.run_folder import RunInfo, write_run_info
from preforch_training.config import read_config
from preforch_training.demo.tutor.checker import accuracy
from preforch_training.demo.tutor.world import TUTOR
from preforch_training.demo.world import TEST_SPLITS
from preforch_training.pipeline import open_run
from preforch_training.report.records import read_report
from preforch_training.scores.table import read_scores
from preforch_training.stages import STAGES
from recipe_world import policy_sizes
from small_world import build

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "tutor.toml"


class ScriptedSampler(policy_world.ScriptedSampler):
    """Gives every problem the same answer."""

    texts = ("As a next step we write 10 + 2 = 12.\nAnswer: 12",)


def test_its_objectives_are_the_worlds_and_accuracy_is_checked_by_rule() -> None:
    config = read_config(CONFIG)
    assert config.names == TUTOR.objectives
    kinds = {name: reward.kind for name, reward in config.reward.objectives.items()}
    assert kinds == {"accuracy": "function", "engagement": "pair_head", "brevity": "pair_head"}


def test_it_runs_from_the_world_to_a_report_that_knows_the_truth(tmp_path: Path) -> None:
    encoder = small_world.write_encoder(tmp_path / "encoder", layers=3)
    config = read_config(
        CONFIG,
        settings=(
            f"run.folder={tmp_path / 'run'}",
            *("data.train_prompts=30", "data.validation_prompts=12", "data.test_prompts=6"),
            *("reward.folds=2", "reward.engagement.epochs=1", "reward.brevity.epochs=1"),
            *(f"reward.{name}.encoder={encoder}" for name in ("engagement", "brevity")),
            *(f"reward.{name}.max_tokens=48" for name in ("engagement", "brevity")),
            *(f"orchestrator.encoder={encoder}", "orchestrator.max_tokens=48"),
            "policy.scratch={vocabulary=400, width=32, layers=1, heads=1, inner=32}",
            *("policy.max_model_len=512", "policy.max_response_tokens=32", "bundle.golden_prompts=4"),
            *("report.sweep_prompts=2", "report.utility_prompts=2", "report.replicates=100"),
            "report.grid_step=0.5",
            *policy_sizes(read_config(CONFIG), steps=1),
        ),
    )
    run = open_run(config)
    for stage in STAGES:
        build(stage, run, config, sampler=ScriptedSampler())
    write_run_info(run.folder, RunInfo(serve=config.served))
    bundle = read_bundle(run.bundle)
    for name in config.policies:
        check_match(bundle, read_policy_card(run.folder / "policy" / name / "round-0"))
    prompts = {prompt.id: prompt.text for prompt in run.prompts()}
    scores = read_scores(run.scores)
    checked = accuracy([prompts[score.prompt_id] for score in scores], [score.response for score in scores])
    assert [score.rewards["accuracy"] for score in scores] == checked
    assert config.policy is not None
    for name in config.policies:
        rows = solved.measure(run, name, ScriptedSampler(), config.policy.sampling, samples=1)
        asked = [prompt.text for prompt in run.prompts() if prompt.split in TEST_SPLITS]
        share = sum(TUTOR.read_prompt(text).problem.answer == 12 for text in asked) / len(asked)
        assert [row[:2] for row in rows] == [(name, split) for split in (*TEST_SPLITS, "all")]
        assert rows[-1][2].startswith(f"{share:.3f} ")
    report = read_report(run.report)
    assert report.world == TUTOR.hash()
    assert report.policy is not None
    assert {entry.measure for entry in report.policy.equal_weights} == {"true", "calibrated"}
    assert {entry.arm.policy for entry in report.policy.texts} == set(config.policies)
