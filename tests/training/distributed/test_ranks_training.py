"""Two ranks train what one trains: the same losses, step by step, and the same models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_world
import tiny
from orchestrator_world import train_on
from preforch_models.context import ContextFormat
from preforch_training.distributed.training import shares_model
from preforch_training.orchestrator.fitting import Targets
from preforch_training.policy.fine_tuning import TokenRow, fine_tune
from preforch_training.policy.pair_tuning import PairRow, train_on_pairs
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.policy.settings.preference import PreferencePolicy
from preforch_training.reward.config import BradleyTerryReward
from preforch_training.reward.fit_task import FitTask
from preforch_training.reward.kinds.bradley_terry import fit
from ranks_world import with_ranks
from safetensors.torch import load_file, save_file
from small_world import make_pairs
from transformers import AutoModel

FORMAT = ContextFormat(objectives=("helpful", "harmless", "humor"))


def inputs(folder: Path) -> Path:
    """What all trainings start from."""
    return folder.parent.parent / "inputs"


def write_inputs(folder: Path) -> None:
    """Tiny models without dropout: a policy, a reward model, an encoder."""
    tiny.write_policy(folder / "policy", FORMAT)
    qwen = small_world.write_qwen_classifier(folder / "qwen")
    AutoModel.from_pretrained(qwen).save_pretrained(qwen)
    small_world.write_encoder(folder / "encoder", layers=2, dropout=0.0)


def rows() -> list[TokenRow]:
    """Rows of all lengths, no multiple of any batch."""
    numbers = np.random.default_rng(0).integers(5, 200, size=(21, 40)).tolist()
    return [TokenRow(tuple(ids[: 5 + i % 7]), tuple(ids[10 : 12 + i])) for i, ids in enumerate(numbers)]


def policy(folder: Path, **options: float) -> None:
    """21 rows, 8 a step: the third step of an epoch holds what is left."""
    settings = FineTuning(
        **{"steps": 7, "learning_rate": 1e-2, "batch_size": 4, "accumulation": 2, "save_steps": 3} | options
    )
    model, found = fine_tune(
        inputs(folder) / "policy", rows(), settings, seed=5, folder=folder, work=folder / "work"
    )
    save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    assert found["loss"] > 0


def policy_lora(folder: Path) -> None:
    policy(folder, lora_rank=4, lora_alpha=8)


def policy_checkpointing(folder: Path) -> None:
    policy(folder, gradient_checkpointing=True)


def policy_continued(folder: Path) -> None:
    """Killed after its sixth step of seven."""
    train_twice(folder, policy)


def policy_lora_continued(folder: Path) -> None:
    train_twice(folder, policy_lora)


def train_twice(folder: Path, training: Callable[[Path], None]) -> None:
    training(folder)
    shutil.rmtree(folder / "work" / "checkpoint-7")
    shutil.rmtree(folder / "tensorboard")
    (folder / "model.safetensors").unlink()
    training(folder)
    assert curve(folder, "step") == [1, 2, 3, 4, 5, 6, 7, 7]


def pairs(folder: Path, **options: float) -> None:
    """11 pairs, 8 a step, against the policy as it was."""
    training = {
        "steps": 7,
        "learning_rate": 1e-2,
        "batch_size": 4,
        "accumulation": 2,
        "save_steps": 3,
        **options,
    }
    config = PreferencePolicy.model_validate({"kind": "preference", "loss": "dpo", "training": training})
    given = [
        PairRow(one.prompt, one.response, two.response)
        for one, two in zip(rows()[:11], rows()[10:], strict=True)
    ]
    model, found = train_on_pairs(
        inputs(folder) / "policy", given, config, seed=5, folder=folder, work=folder / "work"
    )
    save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    assert 0 < found["loss"] < 0.7


def pairs_lora(folder: Path) -> None:
    pairs(folder, lora_rank=4, lora_alpha=8)


def pairs_continued(folder: Path) -> None:
    train_twice(folder, pairs)


def pairs_lora_continued(folder: Path) -> None:
    train_twice(folder, pairs_lora)


def reward(folder: Path) -> None:
    """11 pairs in batches of 4."""
    prompts, pairs = make_pairs("funny")
    config = BradleyTerryReward(
        base=str(inputs(folder) / "qwen"),
        epochs=10,
        batch_size=4,
        learning_rate=3e-3,
        save_steps=2,
        max_tokens=96,
    )
    task = FitTask(folder, folder / "work", folder, prompts, pairs[::11][:11], seed=3, label="test")
    fit(config, task)


def orchestrator(folder: Path) -> None:
    """48 rows in batches of 28, and 13 to validate with, which two ranks cannot share evenly."""
    margins_NK = np.random.default_rng(1).normal(size=(61, 2))
    texts = small_world.questions()
    train, validation = Targets(texts[:48], margins_NK[:48]), Targets(texts[48:61], margins_NK[48:])
    encoder = inputs(folder) / "encoder"
    options = {"epochs": 16, "patience": 16, "batch_size": 28, "loss": "bt_gate", "learning_rate": 1e-3}
    model, _ = train_on(encoder, folder, train, validation, **options)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")


TRAININGS = (
    policy,
    policy_checkpointing,
    policy_continued,
    policy_lora,
    policy_lora_continued,
    pairs,
    pairs_continued,
    pairs_lora,
    pairs_lora_continued,
    reward,
    orchestrator,
)
NAMES = [training.__name__ for training in TRAININGS]


def everything(folder: Path) -> None:
    """All of them in one process, one after the other; LoRA and FSDP2 exclude each other."""
    for training in TRAININGS:
        if not (shares_model() and "lora" in training.__name__):
            (folder / training.__name__).mkdir()
            training(folder / training.__name__)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains."""
    folder = tmp_path_factory.mktemp("trainings")
    write_inputs(folder / "inputs")
    with_ranks("test_ranks_training:everything", folder / "one", processes=1)
    return folder


@pytest.fixture(scope="module", params=["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def shared(made: Path, request: pytest.FixtureRequest) -> Path:
    """What two ranks train together."""
    folder = made / str(request.param)
    with_ranks("test_ranks_training:everything", folder, processes=2, sharding=request.param)
    return folder


def curve(folder: Path, key: str) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry[key] for entry in map(json.loads, lines) if key in entry]


def largest_difference(one: Path, two: Path) -> float:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    assert all(first[key].dtype == second[key].dtype for key in first)
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


@pytest.mark.parametrize("what", [name for name in NAMES if name.endswith("_continued")])
def test_a_continued_training_ends_where_a_whole_one_does(made: Path, what: str) -> None:
    whole = made / "one" / what.removesuffix("_continued")
    assert largest_difference(whole, made / "one" / what) < 1e-5


@pytest.mark.parametrize("what", NAMES)
def test_two_ranks_train_what_one_trains(made: Path, shared: Path, what: str) -> None:
    one, two = made / "one" / what, shared / what
    if shared.name == "fsdp2" and "lora" in what:
        assert not two.exists()
        return
    for key in ("loss", "grad_norm", "eval_loss"):
        np.testing.assert_allclose(curve(one, key), curve(two, key), atol=1e-3)
    assert len(curve(one, "loss")) > 1
    assert largest_difference(one, two) < 1e-3
