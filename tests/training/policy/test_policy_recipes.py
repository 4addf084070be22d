"""What each artifact of the policy stage is made from; a change of it builds it anew. Nothing is built."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from policy_world import make_config, ric, rl, sft, wic
from preforch_models.manifest import Manifest
from preforch_training.config import RunConfig
from preforch_training.pipeline import open_run
from preforch_training.policy import stage
from preforch_training.run import Build, Run
from small_world import NoSampler

RL = rl(start="wic/round-0", weights="context", runs=2)
BOTH = {"wic": wic(online_rounds=2), "plain": sft(), "read": RL, "ric": ric()}
WIC = {f"policy/wic/round-{number}" for number in (0, 1, 2)}
ONLINE = WIC - {"policy/wic/round-0"}
PLAIN = {"policy/plain/round-0"}
RUNS = {"policy/read/run-1", "policy/read/run-2"}
RIC = {"policy/ric/round-0", "policy/ric/round-1"}
RIC_ONLINE = {"policy/ric/round-1"}
ROUNDS = WIC | PLAIN | RUNS | RIC | {"policy/read/round-0"}
ALL = ROUNDS | {"policy/base"}


@dataclass(frozen=True)
class Made:
    """What the stage said of an artifact."""

    kind: str
    recipe: Mapping[str, Any]
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class NotingRun(Run):
    """A run that takes note of what is to be made, and makes nothing."""

    made: dict[str, Made] = field(default_factory=dict)

    def make(
        self, target: Path, *, kind: str, config: Mapping[str, Any], inputs: Mapping[str, Path], build: Build
    ) -> Manifest:
        places = {name: path.relative_to(self.folder).as_posix() for name, path in inputs.items()}
        recipe = json.loads(json.dumps(config))
        self.made[target.relative_to(self.folder).as_posix()] = Made(kind, recipe, places)
        return Manifest(kind=kind)


def made(config: RunConfig) -> dict[str, Made]:
    run = NotingRun(**vars(open_run(config)))
    assert config.policy is not None
    stage.build(run, config.policy, config.policies, sampler=NoSampler())
    return run.made


def config(folder: Path, *, policies: Mapping[str, Any] = BOTH, **sections: Any) -> RunConfig:
    return make_config(folder, policies=policies, serve="wic", **sections)


def test_every_artifact_names_what_it_reads(tmp_path: Path) -> None:
    found = made(config(tmp_path))
    assert {name: artifact.kind for name, artifact in found.items()} == {
        "policy/base": "policy-base",
        **dict.fromkeys(ROUNDS, "policy"),
    }
    offline = {"data": "data", "scores": "scores", "previous": "policy/base"}
    rewards = {f"reward/{name}": f"reward/{name}" for name in ("helpful", "harmless", "humor")}
    online = offline | rewards | {"orchestrator": "orchestrator"}
    assert {name: artifact.inputs for name, artifact in found.items()} == {
        "policy/base": {"data": "data"},
        "policy/plain/round-0": offline,
        "policy/wic/round-0": offline,
        "policy/wic/round-1": online | {"previous": "policy/wic/round-0"},
        "policy/wic/round-2": online | {"previous": "policy/wic/round-1"},
        "policy/ric/round-0": offline,
        "policy/ric/round-1": offline | rewards | {"previous": "policy/ric/round-0"},
        **dict.fromkeys(RUNS, online | {"previous": "policy/wic/round-0"}),
        "policy/read/round-0": {"run-1": "policy/read/run-1", "run-2": "policy/read/run-2"},
    }


def test_a_base_that_is_not_made_from_the_data_does_not_read_them(tmp_path: Path) -> None:
    assert made(config(tmp_path, shared={"base": str(tmp_path)}))["policy/base"].inputs == {}


CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"shared": {"base": "other"}}, {"policy/base"}),
    ({"shared": {"revision": "v2"}}, {"policy/base"}),
    ({"shared": {"scratch": {"vocabulary": 500}}}, {"policy/base"}),
    ({"shared": {"max_model_len": 128}}, ALL),
    ({"run": {"seed": 2}}, ALL),
    ({"context": {"encoding": "digits"}}, ALL),
    ({"shared": {"temperature": 0.9}}, ONLINE | RIC_ONLINE),
    ({"shared": {"top_p": 0.5}}, ONLINE | RIC_ONLINE),
    ({"shared": {"max_response_tokens": 31}}, ONLINE | RUNS | RIC_ONLINE),
    ({"policies": {**BOTH, "plain": sft(steps=5)}}, PLAIN),
    ({"policies": {**BOTH, "wic": wic(online_rounds=2, tau=0.6)}}, WIC),
    ({"policies": {**BOTH, "wic": wic(online_rounds=2, quality_quantile=0.1)}}, WIC),
    ({"policies": {**BOTH, "wic": wic(online_rounds=2, offline={"steps": 5})}}, WIC - ONLINE),
    ({"policies": {**BOTH, "wic": wic(online_rounds=2, offline={"responses": "all"})}}, WIC - ONLINE),
    *(
        ({"policies": {**BOTH, "wic": wic(online_rounds=2, online=online)}}, ONLINE)
        for online in (
            {"prompts": 5},
            {"samples_per_prompt": 2},
            {"keep": "any_above_quantile"},
            {"random_weight_share": 0.0},
            {"original_share": 0.0},
            {"learning_rate": 2e-3},
        )
    ),
    ({"policies": {**BOTH, "ric": ric(mapping="linf")}}, RIC),
    ({"policies": {**BOTH, "ric": ric(offline={**ric()["offline"], "steps": 5})}}, RIC - RIC_ONLINE),
    *(
        ({"policies": {**BOTH, "ric": ric(**change)}}, RIC_ONLINE)
        for change in (
            {"quality_quantile": 0.2},
            {"online": {"prompts": 5}},
            {"online": {"keep": "mean_above_quantile"}},
            {"online": {"original_share": 0.0}},
        )
    ),
    *(
        ({"policies": {**BOTH, "read": {**RL, **change}}}, RUNS)
        for change in (
            {"start": "base"},
            {"combine": "gdpo"},
            {"algorithm": "grpo"},
            {"beta": 0.2},
            {"samples_per_prompt": 4},
            {"temperature": 1.0},
            {"top_p": 1.0},
            {"random_weight_share": 0.5},
            {"repetition_penalty": 1.0},
            {"unfinished_penalty": 1.0},
            {"prompt_noise": 0.5},
            {"training": {**RL["training"], "steps": 5}},
        )
    ),
    ({"report": {"sweep_prompts": 3}}, set()),
]


@pytest.mark.parametrize(
    ("change", "expected"), CHANGES, ids=lambda value: json.dumps(value, default=len)[:70]
)
def test_a_setting_is_in_the_recipe_of_what_it_changes_and_of_nothing_else(
    tmp_path: Path, change: dict[str, Any], expected: set[str]
) -> None:
    if "run" in change:
        change = {"run": {"folder": tmp_path, **change["run"]}}
    before, after = made(config(tmp_path)), made(config(tmp_path, **change))
    assert {name for name in after if after[name].recipe != before[name].recipe} == expected


def test_rounds_and_policies_are_told_apart(tmp_path: Path) -> None:
    found = made(config(tmp_path, policies={**BOTH, "twin": BOTH["wic"]}))
    recipes = [json.dumps(found[name].recipe, sort_keys=True) for name in found]
    assert len(set(recipes)) == len(recipes) == 13
