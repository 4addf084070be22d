"""Policy kind `mod`: a light policy of other policies, whose tokens are drawn from all of them."""

import shutil
from pathlib import Path
from typing import Any

import policy_world
import pytest
import tiny
from policy_world import NAMES, rl, sft, wic
from preforch_models.conditioning.mixture import MixtureConditioning
from preforch_models.conversation import Message
from preforch_models.manifest import digest, read_manifest, verify
from preforch_models.policy_card import PolicyCard, read_policy_card
from preforch_training.inspection import describe
from preforch_training.pipeline import open_run
from preforch_training.policy.kinds.mod import check_alike
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.publishing.card import render_card
from preforch_training.run import Run
from preforch_training.sampling.choosing import ChoosingSampler
from preforch_training.sampling.vllm import SampleRequest
from pydantic import ValidationError
from small_world import NoSampler, build

MEMBERS = {"helpful": "plain", "harmless": "careful", "humor": "funny"}
# Whole parameters and LoRA.
EXPERTS = {
    "plain": sft(),
    "careful": sft(learning_rate=1e-2),
    "funny": sft(lora_rank=2, learning_rate=1e-2),
}
MOD = {"kind": "mod", "members": MEMBERS}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three policies and their mixture."""
    folder = tmp_path_factory.mktemp("mod") / "run"
    config = policy_world.make_config(folder, policies={**EXPERTS, "mod": MOD}, serve="plain")
    run, _ = policy_world.write_inputs(folder, config)
    build("policy", run, config)
    return run


def card(run: Run) -> PolicyCard:
    return read_policy_card(run.policy_round("mod", 0))


def test_it_has_a_tokenizer_and_names_its_members(run: Run) -> None:
    folder = run.policy_round("mod", 0)
    manifest = verify(folder, kind="policy")
    assert not [name for name in manifest.files if name.endswith(".safetensors") or name == "config.json"]
    assert manifest.counts == {"policies": 3}
    experts = {objective: run.policy_round(MEMBERS[objective], 0) for objective in NAMES}
    for objective, member in experts.items():
        assert manifest.inputs[objective] == digest(read_manifest(member).files)
    conditioning = card(run).conditioning
    assert isinstance(conditioning, MixtureConditioning)
    assert conditioning.folders(folder) == {name: folder.resolve() for name, folder in experts.items()}
    message = Message(role="user", content="Tell me a joke")
    prompts = {
        tuple(PolicyTokenizer(place).prompt_ids((message,), {"helpful": 1.0}))
        for place in (folder, *experts.values())
    }
    assert len(prompts) == 1
    assert 'conditioning {"kind":"mixture","members":{"helpful"' in describe(folder)


def test_the_same_is_drawn_wherever_the_run_lies(run: Run, tmp_path: Path) -> None:
    weights = {"helpful": 0.5, "harmless": 0.3, "humor": 0.2}
    request = SampleRequest((Message(role="user", content="Tell me a joke"),), weights, n=5, seed=1)
    moved = open_run(policy_world.make_config(shutil.copytree(run.folder, tmp_path / "moved")))
    here, there = (
        ChoosingSampler(NoSampler()).sample(
            place.policy_round("mod", 0), [request], temperature=1.0, top_p=1.0, max_tokens=8
        )
        for place in (run, moved)
    )
    assert here == there
    assert len({answer.token_ids for answer in here[0]}) == 5


def test_a_member_that_is_trained_again_makes_it_anew(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    before, said = card(run).revision, {}
    for steps in (4, 3):
        policies = {**EXPERTS, "plain": sft(steps=steps), "mod": MOD}
        config = policy_world.make_config(folder, policies=policies, serve="plain")
        other = open_run(config)
        build("policy", other, config)
        said[steps] = capsys.readouterr().err
        assert (card(other).revision == before) == (steps == 4)
    assert "policy/mod/round-0: up to date" in said[4]
    assert "policy/mod/round-0: building" in said[3]


def test_members_of_other_vocabularies_or_turns_are_refused(run: Run, tmp_path: Path) -> None:
    plain = run.policy_round("plain", 0)
    other = tiny.write_fixed_policy(tmp_path / "tiny", NAMES)
    with pytest.raises(ValueError, match=r"'humor' .*tiny\) and 'helpful' .*differ in vocabulary: only pol"):
        check_alike({"helpful": plain, "humor": other})
    turns = shutil.copytree(plain, tmp_path / "turns")
    template = turns / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "!", encoding="utf-8")
    with pytest.raises(ValueError, match="differ in chat template"):
        check_alike({"helpful": plain, "humor": turns})
    check_alike({"helpful": plain, "humor": run.policy_round("funny", 0)})


def test_its_model_card_says_that_it_cannot_be_served(run: Run) -> None:
    config = policy_world.make_config(run.folder, policies={**EXPERTS, "mod": MOD}, serve="plain")
    text = render_card(run.folder, config, "policy/mod/round-0")
    assert "It cannot be served: every token is drawn from several models at once" in text
    assert "preforch serve" not in text
    assert "reads no weights" not in text


@pytest.mark.parametrize(
    ("policies", "serve", "message"),
    [
        (
            {"mod": MOD, **EXPERTS},
            "plain",
            r"mod.members.helpful is 'plain'; allowed are policies that read no weights, further up: \[\]",
        ),
        (
            {**EXPERTS, "wic": wic(), "mod": {**MOD, "members": {**MEMBERS, "humor": "wic"}}},
            "plain",
            r"mod.members.humor is 'wic'; allowed .*\['plain', 'careful', 'funny'\]",
        ),
        (
            {**EXPERTS, "mod": MOD, "both": {**MOD, "members": {**MEMBERS, "humor": "mod"}}},
            "plain",
            "both.members.humor is 'mod'; allowed are",
        ),
        ({**EXPERTS, "mod": {**MOD, "members": {"helpful": "plain"}}}, "plain", "one is needed for each"),
        (
            {**EXPERTS, "mod": {**MOD, "members": {**MEMBERS, "speed": "plain"}}},
            "plain",
            "one is needed for each",
        ),
        (
            {**EXPERTS, "mod": MOD},
            "mod",
            r"serve is 'mod', of kind 'mod', which no engine can serve .*\['careful', 'funny', 'plain'\]",
        ),
        ({**EXPERTS, "mod": MOD}, None, r"must say which policy .*\['careful', 'funny', 'plain'\]"),
        (
            {**EXPERTS, "mod": MOD, "later": rl(start="mod")},
            "plain",
            "later.start is 'mod'; allowed are",
        ),
        ({**EXPERTS, "mod": {**MOD, "step": 0.5}}, "plain", "step"),
    ],
)
def test_settings_that_cannot_work_are_named(
    tmp_path: Path, policies: dict[str, dict[str, Any]], serve: str | None, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        policy_world.make_config(tmp_path, policies=policies, serve=serve)
