"""Policy kind `soup`: an adapter for every point of a grid, on the start of its members."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import policy_world
import pytest
import torch
from peft import PeftModel
from policy_world import rl, sft
from preforch_models.conditioning.members import MembersConditioning
from preforch_models.manifest import digest, read_manifest, verify
from preforch_models.policy_card import read_policy_card
from preforch_training.pipeline import open_run
from preforch_training.policy.kinds.soup import grid_members
from preforch_training.policy.merged.parameters import average
from preforch_training.policy.settings.soup import SoupPolicy
from preforch_training.policy.task import PolicyTask
from preforch_training.report.policies.divergence import divergence
from preforch_training.report.policies.responses import Drawing, Drawn, weighted
from preforch_training.run import Run
from preforch_training.sampling.settings import Sampling
from preforch_training.sampling.vllm import Generation
from pydantic import ValidationError
from safetensors.torch import load_file
from small_world import NoSampler, build
from transformers import AutoModelForCausalLM

LORA = {"lora_rank": 2, "lora_alpha": 4, "learning_rate": 1e-2}


def expert(objective: str, **settings: Any) -> dict[str, Any]:
    return rl(weights={objective: 1.0}, training=LORA, **settings)


MEMBERS = {name: f"best-{name}" for name in policy_world.NAMES}
EXPERTS = {MEMBERS[name]: expert(name) for name in policy_world.NAMES}
SOUP = {"kind": "soup", "members": MEMBERS, "step": 0.5}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three experts and their soup."""
    folder = tmp_path_factory.mktemp("soup") / "run"
    config = policy_world.make_config(folder, policies={**EXPERTS, "soup": SOUP}, serve="soup")
    run, _ = policy_world.write_inputs(folder, config)
    build("policy", run, config)
    return run


def conditioning(run: Run) -> MembersConditioning:
    found = read_policy_card(run.policy_round("soup", 0)).conditioning
    assert isinstance(found, MembersConditioning)
    return found


def test_it_has_a_member_for_every_point_of_the_grid(run: Run) -> None:
    members = conditioning(run).members
    assert len(members) == 6
    assert {member.name for member in members} >= {"soup-100-0-0", "soup-0-50-50"}
    for member in members:
        assert member.name == "-".join(["soup", *(f"{100 * value:.0f}" for value in member.weights.values())])
    manifest = verify(run.policy_round("soup", 0), kind="policy")
    assert manifest.counts == {"members": 6, "policies": 3, "rank": 6}
    start = digest(read_manifest(run.policy_base).files)
    assert manifest.inputs["previous"] == start


def test_its_checkpoint_is_the_start_of_its_members(run: Run) -> None:
    folder = run.policy_round("soup", 0)
    base, found = (load_file(place / "model.safetensors") for place in (run.policy_base, folder))
    assert all(torch.equal(base[name], found[name]) for name in base)


def test_a_member_is_the_weighted_mean_of_the_experts(run: Run) -> None:
    folder = run.policy_round("soup", 0)
    adapter = conditioning(run).adapters(folder)["soup-50-0-50"]
    found = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder), adapter
    ).merge_and_unload()
    experts = [run.policy_round(f"best-{name}", 0) for name in ("helpful", "humor")]
    expected, moved = average(experts, [0.5, 0.5]), 0.0
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    for one, other in zip(found.parameters(), average(experts[:1], [1.0]).parameters(), strict=True):
        moved = max(moved, float((one - other).detach().abs().max()))
    assert moved > 1e-4


def test_its_divergence_is_that_of_the_member_that_answers(run: Run) -> None:
    """And each prompt's, not that of the first member: where all weight is on one objective, its expert's."""
    prompts = run.prompts("train")[:3]
    context = run.context_format
    drawing = Drawing(context, Sampling(temperature=0.7, top_p=1.0, max_tokens=8, dtype="auto"), len)
    answer = Generation((20, 21, 22), "", finished=True)
    asked = [weighted(i, weights, context) for i, weights in enumerate(np.eye(3))]
    drawn = Drawn(dict.fromkeys(asked, answer), 0.0)
    start = run.policy_base
    found = divergence(run.policy_round("soup", 0), start, asked, drawn, prompts, drawing)
    assert found is not None
    alone = [
        divergence(run.policy_round(MEMBERS[name], 0), start, [asked[k]], drawn, prompts, drawing)
        for k, name in enumerate(policy_world.NAMES)
    ]
    np.testing.assert_allclose(found, np.concatenate([one for one in alone if one is not None]), atol=1e-5)
    assert found.min() > 0
    assert np.ptp(found) > 1e-5


@pytest.mark.parametrize("step", [1 / 3, 1 / 7, 0.01])
def test_every_step_makes_members_that_can_be_served(run: Run, step: float) -> None:
    config = policy_world.make_config(run.folder, policies={**EXPERTS, "soup": SOUP}, serve="soup")
    assert config.policy is not None
    task = PolicyTask(run, config.policy, "soup", NoSampler(), config.policies)
    members = grid_members(task, SoupPolicy.model_validate({**SOUP, "step": step}))
    found = MembersConditioning(rank=6, members=members)
    count = round(1 / step)
    assert len(found.members) == (count + 1) * (count + 2) // 2


def test_nothing_in_it_names_a_folder_of_this_machine(run: Run) -> None:
    for policy in ("soup", "best-humor"):
        for file in run.policy_round(policy, 0).rglob("adapter_config.json"):
            assert str(run.folder.parent) not in file.read_text(encoding="utf-8")
            assert not (file.parent / "README.md").exists()


def test_another_grid_is_another_revision(run: Run, tmp_path: Path) -> None:
    before = read_policy_card(run.policy_round("soup", 0)).revision
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    policies = {**EXPERTS, "soup": {**SOUP, "step": 1.0}}
    config = policy_world.make_config(folder, policies=policies, serve="soup")
    other = open_run(config)
    build("policy", other, config)
    assert read_policy_card(other.policy_round("soup", 0)).revision != before


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"soup": SOUP, **EXPERTS}, "members.helpful is 'best-helpful'; allowed are policies of kind 'rl'"),
        (
            {**EXPERTS, "plain": sft(), "soup": {**SOUP, "members": {**MEMBERS, "humor": "plain"}}},
            "is 'plain'",
        ),
        (
            {**EXPERTS, "best-humor": rl(weights={"humor": 1.0}), "soup": SOUP},
            "members.humor is 'best-humor'",
        ),
        ({**EXPERTS, "best-humor": expert("humor", runs=2), "soup": SOUP}, "trained in one run"),
        (
            {**EXPERTS, "best-humor": rl(weights="context", training=LORA), "soup": SOUP},
            "members.humor is 'best-humor'; allowed are",
        ),
        (
            {n: {**e, "training": {**e["training"], "lora_rank": 200}} for n, e in EXPERTS.items()}
            | {"soup": SOUP},
            "policies.soup: its members together are adapters of rank 600: vLLM serves 512",
        ),
        (
            {**EXPERTS, "soup": SOUP, "a": rl(weights="context", start="soup")},
            r"policies.a.start is 'soup'; allowed are \['base'\]",
        ),
        (
            {"plain": sft(), **EXPERTS, "best-humor": expert("humor", start="plain"), "soup": SOUP},
            r"start from \['base', 'plain'\]; one start",
        ),
        ({**EXPERTS, "soup": {**SOUP, "members": {"helpful": "best-helpful"}}}, "one is needed for each"),
        ({**EXPERTS, "soup": {**SOUP, "step": 0.3}}, "step is 0.3: it must divide 1"),
        ({**EXPERTS, "soup": {**SOUP, "step": 0.001}}, "step"),
    ],
)
def test_settings_that_cannot_work_are_named(
    tmp_path: Path, policies: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        policy_world.make_config(tmp_path, policies=policies, serve="soup")
