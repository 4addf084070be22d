"""A few prompts with responses, for the tests of what scores them; and how far two checkpoints are apart."""

from pathlib import Path
from typing import Any

import numpy as np
from preforch_training.records import PreferencePair, Prompt
from preforch_training.reward.config import BradleyTerryReward, Reward
from preforch_training.reward.fit_task import FitTask
from preforch_training.reward.kinds.bradley_terry import fit
from preforch_training.reward.scoring import score
from safetensors.numpy import load_file
from small_world import FUNNY, NAMES, SAFE, make_prompt

NOWHERE = Path("nowhere")
PROMPTS = [
    make_prompt("joke about bear one"),
    make_prompt("danger near dog two", "careful", "joke about lamp three"),
    make_prompt("danger"),
    make_prompt(" ".join(["old text"] * 6 + ["joke about fire four"])),
    make_prompt("joke about kettle five"),
]
RESPONSES = [FUNNY, SAFE, " ".join([SAFE] * 3), "haha", FUNNY]


def reward(config: Reward, prompts: list[Prompt] = PROMPTS, responses: list[str] = RESPONSES) -> np.ndarray:
    """Rewards by a kind that needs neither a model folder nor a cache, (N,)."""
    return score(config, NOWHERE, NOWHERE, prompts, responses)


def differ(first: Path, second: Path) -> float:
    """Largest difference of two checkpoints."""
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    return max(float(np.abs(one[key] - two[key]).max()) for key in one)


def pair_heads(encoder: Path, **options: Any) -> dict[str, Any]:
    """Sections of trained rewards, by objective."""
    head = {
        "kind": "pair_head",
        "encoder": str(encoder),
        "hidden": 16,
        "epochs": 10,
        "batch_size": 16,
        **options,
    }
    return dict.fromkeys(NAMES, head)


def train(
    folder: Path,
    config: BradleyTerryReward,
    prompts: dict[str, Prompt],
    pairs: list[PreferencePair],
    *,
    seed: int,
    name: str = "model",
) -> Path:
    """A fine-tuned classifier in `folder`; also what the killed process of a test runs."""
    task = FitTask(
        target=folder / name,
        work=folder / f"{name}.work",
        cache=folder,
        prompts=prompts,
        pairs=pairs,
        seed=seed,
        label="test",
    )
    fit(config, task)
    return task.target
