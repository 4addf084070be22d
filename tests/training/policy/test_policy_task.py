"""What every kind of policy shares: each round samples from the round before, and goes on from it."""

from pathlib import Path

import policy_world
import pytest
import torch
from policy_world import make_config, wic
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.manifest import read_manifest
from preforch_training.policy.checkpoint import PolicyInfo, read_policy_info
from preforch_training.policy.fine_tuning import TokenRow
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.policy.task import PolicyTask
from preforch_training.run import Outcome, Run
from safetensors.torch import load_file
from small_world import NoSampler, build


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, policy_world.ScriptedSampler]:
    """An offline and two online rounds."""
    folder = tmp_path_factory.mktemp("task") / "run"
    config = make_config(folder, policies={"wic": wic(online_rounds=2)})
    run, _ = policy_world.write_inputs(folder, config)
    sampler = policy_world.ScriptedSampler()
    build("policy", run, config, sampler=sampler)
    return run, sampler


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def distance(one: Path, other: Path) -> float:
    first, second = weights_of(one), weights_of(other)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_each_round_samples_from_the_round_before(
    built: tuple[Run, policy_world.ScriptedSampler],
) -> None:
    run, sampler = built
    assert sampler.policies == [run.policy_round("wic", 0), run.policy_round("wic", 1)]


def test_a_round_is_bound_to_the_round_before(built: tuple[Run, policy_world.ScriptedSampler]) -> None:
    run, _ = built
    previous = [read_manifest(run.policy_round("wic", number)).inputs["previous"] for number in (0, 1, 2)]
    assert len(set(previous)) == 3


def task_of(run: Run, name: str) -> PolicyTask:
    """One more policy of the run."""
    config = make_config(run.folder, policies={"wic": wic(online_rounds=2)})
    assert config.policy is not None
    return PolicyTask(run, config.policy, name, NoSampler())


def train(task: PolicyTask, number: int, rows: list[TokenRow], folder: Path) -> Outcome:
    """Train a round at a rate at which nothing moves, so that what comes out shows what went in."""
    work = folder / "work"
    work.mkdir()
    conditioning = ContextConditioning(encoding=task.run.context_format.encoding)
    settings = FineTuning(steps=1, learning_rate=1e-12, batch_size=4)
    return task.train(number, rows, settings, kind="wic", conditioning=conditioning, folder=folder, work=work)


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_goes_on_from_the_weights_of_the_round_before(
    built: tuple[Run, policy_world.ScriptedSampler], tmp_path: Path, number: int
) -> None:
    run, _ = built
    train(task_of(run, "wic"), number, [TokenRow((5, 6), (7,))] * 4, tmp_path)
    distances = {other: distance(tmp_path, run.policy_round("wic", other)) for other in (0, 1, 2)}
    assert distances.pop(number - 1) < 1e-6
    assert min(distances.values()) > 1e-4


def test_a_round_says_whose_it_is_and_how_many_rows_were_too_long(
    built: tuple[Run, policy_world.ScriptedSampler], tmp_path: Path
) -> None:
    task = task_of(built[0], "mine")
    rows = [TokenRow((5, 6), (7,))] * 4 + [TokenRow((5,) * task.shared.max_model_len, (7,))]
    assert train(task, 0, rows, tmp_path).counts == {"rows": 4, "too_long": 1}
    assert read_policy_info(tmp_path) == PolicyInfo(name="mine", kind="wic", round=0)
    # What a killed training goes on from is no part of the policy.
    assert [path.parent.name for path in tmp_path.rglob("checkpoint-1")] == ["work"]


def test_every_round_depends_on_these_besides_its_own_settings(
    built: tuple[Run, policy_world.ScriptedSampler],
) -> None:
    task = task_of(built[0], "mine")
    assert task.recipe == {
        "name": "mine",
        "context": built[0].context_format.model_dump(mode="json"),
        "max_model_len": task.shared.max_model_len,
        "seed": 1,
    }
