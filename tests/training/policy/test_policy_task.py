"""What every kind of policy shares: each round samples from the round before, and goes on from it."""

from pathlib import Path

import policy_world
import pytest
import torch
from policy_world import make_config, wic
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.manifest import read_manifest
from preforch_training.policy.config import FineTuning
from preforch_training.policy.fine_tuning import TokenRow
from preforch_training.policy.task import PolicyTask
from preforch_training.run import Run
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


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_goes_on_from_the_weights_of_the_round_before(
    built: tuple[Run, policy_world.ScriptedSampler], tmp_path: Path, number: int
) -> None:
    run, _ = built
    config = make_config(run.folder, policies={"wic": wic(online_rounds=2)})
    assert config.policy is not None
    (tmp_path / "work").mkdir()
    PolicyTask(run, config.policy, "wic", NoSampler()).train(
        number,
        [TokenRow((5, 6), (7,))] * 4,
        # At this rate nothing moves, so what comes out shows what went in.
        FineTuning(steps=1, learning_rate=1e-12, batch_size=4),
        kind="wic",
        conditioning=ContextConditioning(encoding=run.context_format.encoding),
        folder=tmp_path,
        work=tmp_path / "work",
    )
    distances = {other: distance(tmp_path, run.policy_round("wic", other)) for other in (0, 1, 2)}
    assert distances.pop(number - 1) < 1e-6
    assert min(distances.values()) > 1e-4
