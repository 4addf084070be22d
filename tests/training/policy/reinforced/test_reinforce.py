"""Reinforcement end to end: it learns, it goes on after a kill, two ranks do it together."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import policy_world
import pytest
import torch
from policy_world import rl
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_training.pipeline import open_run
from preforch_training.policy.checkpoint import PolicyInfo, save_policy
from preforch_training.policy.reinforced.snapshots import snapshot
from preforch_training.policy.reinforced.training import Ask, Reference, reinforce
from preforch_training.policy.settings.rl import RlPolicy
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.run import Run
from ranks_world import with_ranks
from safetensors.torch import load_file, save_file
from small_world import build

STEPS = 6


def inputs(folder: Path) -> Run:
    """A run with a base, made once for all trainings."""
    config = policy_world.make_config(folder.parent.parent / "run")
    if not config.run.folder.exists():
        run, _ = policy_world.write_inputs(config.run.folder, config)
        build("policy", run, config.model_copy(update={"policies": {}}))
        return run
    return open_run(config)


def train(folder: Path) -> None:
    """Six steps of two prompts and four responses each, with a checkpoint after every second step."""
    run = inputs(folder)
    config = RlPolicy.model_validate(
        rl(
            samples_per_prompt=4,
            unfinished_penalty=1.0,
            snapshots=2,
            training={"steps": STEPS, "batch_size": 8, "save_steps": 2, "learning_rate": 3e-3},
        )
    )
    reader = PolicyTokenizer(run.policy_base, FixedConditioning())
    write = partial(
        save_policy,
        tokenizer=reader.tokenizer,
        info=PolicyInfo(name="one", kind="rl", round=0),
        objectives=run.names,
        conditioning=FixedConditioning(),
        max_model_len=64,
    )
    model, found = reinforce(
        run,
        run.policy_base,
        [Ask(prompt, prompt.messages, (0.5, 0.3, 0.2), {}) for prompt in run.prompts("train")[: 2 * STEPS]],
        Reference(np.zeros((1, 3)), 6),
        config,
        reader=reader,
        max_tokens=8,
        seed=3,
        write=write,
        folder=folder,
        work=folder / "work",
    )
    assert np.isfinite(list(found.values())).all()
    save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")


def killed(folder: Path) -> None:
    """Killed before its last checkpoint, and run again."""
    train(folder)
    shutil.rmtree(folder / "work" / f"checkpoint-{STEPS}")
    shutil.rmtree(folder / "tensorboard")
    (folder / "model.safetensors").unlink()
    shutil.rmtree(folder / "snapshots")
    train(folder)


def both(folder: Path) -> None:
    for job in (train, killed):
        (folder / job.__name__).mkdir()
        job(folder / job.__name__)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings by one process."""
    folder = tmp_path_factory.mktemp("reinforce")
    with_ranks("test_reinforce:both", folder / "one", processes=1)
    return folder


def parameters(policy: Path) -> dict[str, torch.Tensor]:
    return load_file(policy / "model.safetensors")


def curve(folder: Path, key: str) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry[key] for entry in map(json.loads, lines) if key in entry]


def test_a_killed_training_ends_where_a_whole_one_does(made: Path) -> None:
    whole, continued = (load_file(made / "one" / name / "model.safetensors") for name in ("train", "killed"))
    assert whole.keys() == continued.keys()
    assert max(float((whole[key] - continued[key]).abs().max()) for key in whole) < 1e-6
    for key in ("utility", "kl", "completions/mean_length"):
        assert curve(made / "one" / "train", key) == pytest.approx(curve(made / "one" / "killed", key))
    for step in (STEPS // 2, STEPS):
        kept, again = (parameters(snapshot(made / "one" / name, step)) for name in ("train", "killed"))
        assert max(float((kept[key] - again[key]).abs().max()) for key in kept) < 1e-6
        # It is the model of that step, neither a later one nor the start.
        assert (max(float((whole[key] - kept[key]).abs().max()) for key in kept) < 1e-6) == (step == STEPS)
    start = load_file(inputs(made / "one" / "train").policy_base / "model.safetensors")
    assert max(float((whole[key] - start[key]).abs().max()) for key in start) > 1e-3


def test_two_ranks_train_one_policy(made: Path) -> None:
    """Each draws by itself, so it is another policy than one rank's; its steps hold as many responses."""
    with_ranks("test_reinforce:train", made / "two" / "train", processes=2)
    one, two = (made / name / "train" for name in ("one", "two"))
    assert curve(two, "step") == curve(one, "step")
    assert len(curve(two, "utility")) == STEPS
    # The first step's policy is the start, which is the reference.
    assert curve(two, "kl")[0] == pytest.approx(0, abs=1e-6)
    assert load_file(two / "model.safetensors").keys() == load_file(one / "model.safetensors").keys()
