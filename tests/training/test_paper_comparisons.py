"""The paper's comparisons, `compare-hh.toml` and its kin: the numbers of its Table 6, the plan, and (`make
test-slow`) every policy built on tiny models of the same architectures."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from policy_world import ScriptedSampler
from preforch_models.bundle import read_bundle
from preforch_models.manifest import verify
from preforch_models.policy_card import check_match, read_policy_card
from preforch_training.config import RunConfig, read_config
from preforch_training.pipeline import open_run
from preforch_training.plan.report import describe
from preforch_training.plan.tables import Question
from preforch_training.policy.kinds import KINDS
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.policy.settings.rl import RlPolicy
from preforch_training.report.records import read_report
from preforch_training.stages import STAGES
from recipe_world import COMPARISONS, CONFIGS, dry_run
from small_world import build

READ = {"wic", "ric", "soup", "reinforced"}
LOSSES = ("dpo", "ipo", "wpo", "simpo", "kto")
OTHERS = {"sft", *LOSSES, "modpo-equal", "morlhf-uniform", "pro-morlhf", "ric", "soup", "wic", "reinforced"}

pytestmark = pytest.mark.parametrize("name", COMPARISONS)


def raw(name: str) -> dict[str, Any]:
    return tomllib.loads((CONFIGS / f"{name}.toml").read_text(encoding="utf-8"))


def load(name: str) -> RunConfig:
    return read_config(CONFIGS / f"{name}.toml")


def test_data_rewards_orchestrator_and_pro_wic_are_the_recipes(name: str) -> None:
    found, recipe = raw(name), raw(COMPARISONS[name])
    assert found.pop("serve") == "wic"
    assert (found.pop("run"), recipe.pop("run")) == (
        {"folder": f"runs/{name}", "seed": 1},
        {"folder": f"runs/{COMPARISONS[name]}", "seed": 1},
    )
    assert found.pop("report") == {"reference": "sft"}
    policies, own = found.pop("policies"), recipe.pop("policies")
    assert {key: policies[key] for key in own} == own
    # Pairs of an objective, which MODPO needs, where the recipe has none.
    more = [source for source in found["data"]["sources"] if source not in recipe["data"]["sources"]]
    assert [source["objective"] for source in more] == (["preference"] if name == "compare-reddit" else [])
    found["data"]["sources"] = [source for source in found["data"]["sources"] if source not in more]
    assert found == recipe


def test_it_has_the_kinds_and_an_expert_for_each_objective(name: str) -> None:
    config = load(name)
    # `mod` draws without an engine, which takes too long at full size; `cpo` is compared on the demo world.
    assert {policy.kind for policy in config.policies.values()} == set(KINDS) - {"mod", "cpo"}
    experts = {f"only-{objective.replace('_', '-')}": objective for objective in config.names}
    assert config.policies.keys() == OTHERS | experts.keys()
    for expert, objective in experts.items():
        assert config.policies[expert].model_dump()["weights"] == {objective: 1.0}
    assert {loss: config.policies[loss].model_dump()["loss"] for loss in LOSSES} == {k: k for k in LOSSES}
    assert config.policies["pro-morlhf"].model_dump()["weights"] == "orchestrator"
    assert {key for key, policy in config.policies.items() if policy.reads_weights} == READ


def test_pair_losses_and_reinforcement_have_the_numbers_of_table_6(name: str) -> None:
    config = load(name)
    for key, policy in config.policies.items():
        if isinstance(policy, PreferencePolicy):
            assert policy.beta == (2.5 if policy.loss == "simpo" else 0.1), key
        elif isinstance(policy, RlPolicy):
            sampling = (policy.temperature, policy.top_p, policy.samples_per_prompt)
            assert (policy.beta, *sampling) == (0.1, 0.8, 0.95, 8), key
            assert (policy.combine, policy.repetition_penalty, policy.runs) == ("sum", 0, 1), key
        else:
            continue
        (training,) = policy.trainings.values()
        assert training.learning_rate == 5e-7, key
        assert training.batch_size * training.accumulation == 128, key
        assert policy.start == ("wic/round-0" if key == "reinforced" else "sft")
    shared = config.policy
    assert shared is not None
    # Where the paper names lengths; for the other two tasks RiC does.
    if name == "compare-ultrafeedback":
        assert (shared.max_model_len, shared.max_response_tokens) == (4096, 2048)


def test_the_plan_counts_every_training(tmp_path: Path, name: str) -> None:
    recipe = dry_run(tmp_path, name)
    config = read_config(recipe.config, settings=tuple(recipe.settings))
    text = describe(config, Question(), title=name, reachable=False)
    assert "unknown" not in text
    for key, policy in config.policies.items():
        for part in policy.trainings:
            assert f"\n| policy/{key}, {part} |" in text
    lines = describe(load(name), Question(), title=name, reachable=False).splitlines()
    datasets = [line.split("|")[1] for line in lines if line.startswith("| dataset ")]
    assert len(datasets) == len(set(datasets)) > 0


@pytest.mark.slow
def test_every_policy_of_a_comparison_is_built(tmp_path: Path, name: str) -> None:
    recipe = dry_run(tmp_path, name, steps=1)
    config = read_config(recipe.config, settings=(f"run.folder={tmp_path / 'run'}", *recipe.settings))
    run = open_run(config)
    for stage in STAGES:
        build(stage, run, config, ScriptedSampler())
    bundle = read_bundle(run.bundle)
    for key, policy in config.policies.items():
        for number in range(policy.rounds):
            verify(run.policy_round(key, number), kind="policy")
        card = read_policy_card(run.policy_round(key, policy.rounds - 1))
        check_match(bundle, card)
        assert card.conditioning.reads_weights == (key in READ)
    report = read_report(run.report).policy
    assert report is not None
    assert report.served == "online", "the last round of PRO-WIC"
    assert set(report.fixed) == config.policies.keys() - READ
