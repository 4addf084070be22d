"""`compare-demo.toml`: every kind of policy in one run, at tiny size, with real vLLM (slow).
`compare-demo-two.toml`: the policies of the paper's tables, for two objectives, with a scripted sampler."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from kill_resume import train_command
from policy_world import ScriptedSampler
from preforch_models.bundle import read_bundle
from preforch_models.manifest import verify
from preforch_models.policy_card import check_match, read_policy_card
from preforch_models.run_folder import RunInfo, find_policy, write_run_info
from preforch_training.config import RunConfig, read_config
from preforch_training.pipeline import open_run
from preforch_training.policy.kinds import KINDS
from preforch_training.report.records import read_report
from preforch_training.stages import STAGES
from preforch_training.statistics.predictors import NO_WEIGHTS, RECOMMENDED
from recipe_world import policy_sizes
from small_world import build
from test_with_vllm import gateway_process

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
EVERY, TWO = CONFIGS / "compare-demo.toml", CONFIGS / "compare-demo-two.toml"
READ = {"wic", "ric", "ric-selective", "cpo", "soup", "mod", "reinforced"}


def tiny_settings(path: Path) -> Iterator[str]:
    """The same run in a minute: few prompts, a small policy, a step or two of each training."""
    config = read_config(path)
    yield from ("data.train_prompts=60", "data.validation_prompts=20", "data.test_prompts=8")
    yield from ("orchestrator.epochs=1", "reward.folds=2", "policy.max_response_tokens=16")
    yield "policy.scratch={vocabulary=400, width=32, layers=1, heads=1, inner=32}"
    yield from (f"reward.{name}.epochs=1" for name in config.names)
    yield from ("report.sweep_prompts=2", "report.utility_prompts=2", "report.replicates=100")
    yield from ("report.grid_step=0.5", "report.best_of.samples=3", "policies.soup.step=0.5")
    yield from policy_sizes(config, steps=1)
    yield from ("policies.wic.online.samples_per_prompt=3", "policies.reinforced.runs=2")
    if path == EVERY:
        yield from ("policies.selective-dpo.seeds=1", "reward.overall.epochs=1")


def test_it_has_every_kind() -> None:
    assert {policy.kind for policy in read_config(EVERY).policies.values()} == set(KINDS)


def test_two_objectives_have_policies_of_all_three() -> None:
    """What is said of a policy here holds for that of the same name there, but for the objectives."""
    every, two = read_config(EVERY), read_config(TWO)
    assert set(two.policies) < set(every.policies)
    for name, policy in two.policies.items():
        if policy.kind not in ("soup", "mod") and name != "modpo-equal":
            assert policy == every.policies[name], name


def test_policies_of_two_objectives_are_built_and_compared(tmp_path: Path) -> None:
    config = read_config(TWO, settings=(f"run.folder={tmp_path / 'run'}", *tiny_settings(TWO)))
    run = open_run(config)
    for stage in STAGES:
        build(stage, run, config, sampler=ScriptedSampler())
    write_run_info(run.folder, RunInfo(serve=config.served))
    check_run(run.folder, config)


def check_run(folder: Path, config: RunConfig) -> None:
    bundle = read_bundle(folder / "bundle")
    # What `preforch serve` looks for, and refuses where it is stale.
    for name in config.policies:
        assert find_policy(folder, name=name).parent.name == name
    for name, policy in config.policies.items():
        for number in range(policy.rounds):
            verify(folder / "policy" / name / f"round-{number}", kind="policy")
        card = read_policy_card(folder / "policy" / name / f"round-{policy.rounds - 1}")
        check_match(bundle, card)
        assert card.conditioning.reads_weights == (name in READ)
    report = read_report(folder / "report").policy
    assert report is not None
    assert report.served == "reinforced"
    best = "best of 3 of sft"
    own = {entry.arm.policy: entry.arm.arm for entry in report.texts}
    assert own == {
        name: RECOMMENDED if name in {best, *READ} else NO_WEIGHTS for name in [best, *config.policies]
    }
    compared = {gain.second.policy for gain in report.differences if gain.split == "test"}
    assert compared >= {best, *config.policies} - {"reinforced"}


@pytest.mark.slow
def test_every_policy_is_built_and_compared_by_the_command_with_real_vllm(tmp_path: Path) -> None:
    settings = [*tiny_settings(EVERY)]
    subprocess.run(train_command(EVERY, tmp_path / "run", settings), check=True)
    check_run(tmp_path / "run", read_config(EVERY, settings=tuple(settings)))
    for name, applied in {"ric": True, "soup": True, "reinforced": True, "dpo": False}.items():
        (tmp_path / name).mkdir()
        check_service(tmp_path / "run", name, tmp_path / name / "log", applied=applied)


def check_service(run: Path, name: str, log: Path, *, applied: bool) -> None:
    """The unmodified client of OpenAI, in front of a real vLLM on one policy of the run."""
    with gateway_process(run, log, "--policy-name", name) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready at "), log.read_text(encoding="utf-8")
        prompts = set()
        with openai.OpenAI(base_url=f"{line.split()[-1]}/v1", api_key="none", max_retries=0) as client:
            for weights in ({"helpful": 1.0}, {"humor": 1.0}):
                body = {"preference_weights": weights, "return_prompt_text": True}
                answer = client.chat.completions.create(
                    model=name,
                    messages=[{"role": "user", "content": "How do I clean the old kettle?"}],
                    max_tokens=4,
                    extra_body=body,
                )
                said = answer.model_extra or {}
                assert said["preference"]["applied"] is applied
                prompts.add((said["prompt_text"], said["preference"].get("member", {}).get("name")))
        # Other weights reach the policy, in its prompt or by another member, where it says that they do.
        assert len(prompts) == (2 if applied else 1)
