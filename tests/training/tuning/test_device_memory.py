"""What a training held is gone when it is done, and nothing of it lives where the sampler starts an engine.

Tensors are counted without collecting cycles first: that is what the code has to have done.
"""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orchestrator_world
import policy_world
import pytest
import small_world
import tiny
import torch
from policy_world import NAMES, wic
from preforch_models.context import ContextFormat
from preforch_training.policy.fine_tuning import TokenRow, fine_tune
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.reward.config import BradleyTerryReward
from preforch_training.reward.fit_task import FitTask
from preforch_training.reward.kinds.bradley_terry import fit
from preforch_training.sampling.vllm import Generation, SampleRequest
from preforch_training.tuning.device_memory import free_memory
from small_world import build


@pytest.fixture(autouse=True)
def _no_accidental_collection() -> Iterator[None]:
    """Python's own collector must not do by chance what the code is to do."""
    free_memory()
    gc.disable()
    yield
    gc.enable()


def live_bytes() -> int:
    """Of all floating-point tensors that Python knows."""
    tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, torch.nn.Parameter)]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.is_floating_point()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def model_bytes(model: torch.nn.Module) -> int:
    return sum(p.untyped_storage().nbytes() for p in {id(p): p for p in model.parameters()}.values())


@pytest.mark.parametrize("lora_rank", [0, 4], ids=["full", "lora"])
def test_a_fine_tuned_policy_is_all_that_is_left_of_its_training(tmp_path: Path, lora_rank: int) -> None:
    policy = tiny.write_policy(tmp_path / "base", ContextFormat(objectives=NAMES, encoding="levels"))
    rows = [TokenRow((5, 6), (7, 8))] * 8
    settings = FineTuning(steps=3, learning_rate=1e-3, batch_size=4, lora_rank=lora_rank)
    (tmp_path / "work").mkdir()
    free_memory()
    before = live_bytes()
    model, _ = fine_tune(policy, rows, settings, seed=1, folder=tmp_path, work=tmp_path / "work")
    assert live_bytes() - before < 1.2 * model_bytes(model), "more than the model itself is alive"
    del model
    free_memory()
    assert live_bytes() - before < 1000


def test_a_fine_tuned_orchestrator_is_all_that_is_left_of_its_training(encoder: Path, tmp_path: Path) -> None:
    before = live_bytes()
    model, _ = orchestrator_world.train(encoder, tmp_path, epochs=1)
    assert live_bytes() - before < 1.2 * model_bytes(model)


def test_nothing_is_left_of_a_fine_tuned_reward(tmp_path: Path) -> None:
    folder = small_world.write_qwen_classifier(tmp_path / "qwen")
    free_memory()
    before = live_bytes()
    prompts, pairs = small_world.make_pairs("funny")
    fit(
        BradleyTerryReward(kind="bradley_terry", base=str(folder), epochs=1, max_tokens=96),
        FitTask(
            target=tmp_path / "model",
            work=tmp_path / "work",
            cache=tmp_path,
            prompts=prompts,
            pairs=pairs[:16],
            seed=1,
            label="test",
        ),
    )
    assert live_bytes() - before < 1000


class CountingSampler(policy_world.ScriptedSampler):
    """Counts what is alive whenever it is asked for responses, where an engine would want the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[int] = []

    def sample(
        self, policy: Path, requests: Sequence[SampleRequest], **settings: Any
    ) -> list[list[Generation]]:
        self.alive.append(live_bytes())
        return super().sample(policy, requests, **settings)


def test_no_parameter_is_alive_when_responses_are_sampled(tmp_path: Path) -> None:
    config = policy_world.make_config(tmp_path / "run", policies={"wic": wic(online_rounds=2)})
    run, _ = policy_world.write_inputs(tmp_path / "run", config)
    free_memory()
    before = live_bytes()
    sampler = CountingSampler()
    build("policy", run, config, sampler=sampler)
    assert len(sampler.alive) == 2
    assert max(sampler.alive) - before < 1000
    assert live_bytes() - before < 1000
