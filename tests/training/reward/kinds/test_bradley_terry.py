"""Reward kind `bradley_terry`: it learns, truncates, and is the same after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
from preforch_training.records import PreferencePair
from preforch_training.reward.config import BradleyTerryReward
from preforch_training.reward.kinds.bradley_terry import pair_tokens
from preforch_training.reward.scoring import score
from preforch_training.tuning.hf_trainer import last_checkpoint
from reward_world import differ, train
from small_world import FUNNY, SAFE, make_pairs, make_prompt
from transformers import AutoModel, AutoTokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen2 without a head."""
    folder = small_world.write_qwen_classifier(tmp_path_factory.mktemp("base") / "qwen")
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    return folder


def classifier(base: Path, **options: Any) -> BradleyTerryReward:
    settings = {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "save_steps": 5,
        "max_tokens": 96,
        **options,
    }
    return BradleyTerryReward(base=str(base), **settings)


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that was trained without interruption."""
    folder = tmp_path_factory.mktemp("classifier")
    return train(folder, classifier(base), *make_pairs("funny"), seed=7)


def rewards_of(base: Path, model: Path, responses: list[str]) -> np.ndarray:
    prompts = [make_prompt(f"joke about bear {number}") for number in small_world.NUMBERS][: len(responses)]
    return score(classifier(base), model, model, prompts, responses)


def test_a_fine_tuned_classifier_learns_which_response_is_preferred(base: Path, trained: Path) -> None:
    rewards = rewards_of(base, trained, [FUNNY, SAFE, FUNNY, SAFE])
    assert rewards[[0, 2]].min() > rewards[[1, 3]].max() + 1
    lines = [
        json.loads(line) for line in (trained / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    curve = [line["loss"] for line in lines if "loss" in line]
    assert curve[-1] < curve[0]


def test_a_fine_tuned_classifier_scores_alike_alone_and_in_company(base: Path, trained: Path) -> None:
    responses = [FUNNY, f"{SAFE} {SAFE} {SAFE}", "haha"]
    together = rewards_of(base, trained, responses)
    assert rewards_of(base, trained, responses[:1])[0] == pytest.approx(together[0], abs=1e-4)


TRAIN = """
import sys
from pathlib import Path
import small_world
from test_bradley_terry import classifier, train
folder, base = Path(sys.argv[1]), Path(sys.argv[2])
train(folder, classifier(base), *small_world.make_pairs("funny"), seed=7)
"""


def test_a_killed_training_continues_to_the_same_result(base: Path, trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAIN, str(tmp_path), str(base)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while not list(tmp_path.glob("model.work/checkpoint-*/complete")) and process.poll() is None:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text(encoding="utf-8")[-2000:]
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text(encoding="utf-8")[-2000:]
    assert not (tmp_path / "model").exists()
    # A mark in the checkpoint shows afterwards that it was used.
    state_file = Path(last_checkpoint(tmp_path / "model.work") or "") / "trainer_state.json"
    state = json.loads(state_file.read_text(encoding="utf-8"))
    state["log_history"].append({"step": 0, "loss": 123.0})
    state_file.write_text(json.dumps(state), encoding="utf-8")
    train(tmp_path, classifier(base), *make_pairs("funny"), seed=7)
    assert differ(trained, tmp_path / "model") < 1e-5
    assert '{"step": 0, "loss": 123.0}' in (tmp_path / "model" / "metrics.jsonl").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_model_and_another_one_does_not(base: Path, tmp_path: Path) -> None:
    prompts, pairs = make_pairs("funny")
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        settings = classifier(base, epochs=1)
        train(tmp_path, settings, prompts, pairs[:16], seed=seed, name=name)
    assert differ(tmp_path / "a", tmp_path / "b") == 0
    assert differ(tmp_path / "a", tmp_path / "c") > 1e-5


def test_long_pairs_are_truncated_at_the_beginning_and_never_dropped(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base, truncation_side="left")
    prompt = make_prompt("old text " * 60 + "joke")
    pair = PreferencePair(
        id="0", prompt_id=prompt.id, objective="funny", chosen=FUNNY, rejected=SAFE, split="train"
    )
    (tokens,) = pair_tokens(tokenizer, classifier(base), {prompt.id: prompt}, [pair], 40)
    assert {side: len(ids) for side, ids in tokens.items()} == {"chosen_ids": 40, "rejected_ids": 40}
    assert tokenizer.decode(tokens["chosen_ids"]).rstrip().endswith(f"joke [assistant] {FUNNY}")
    train(tmp_path, classifier(base, epochs=1, max_tokens=40), {prompt.id: prompt}, [pair] * 8, seed=1)
    state = json.loads(
        next(tmp_path.glob("model.work/checkpoint-*/trainer_state.json")).read_text(encoding="utf-8")
    )
    assert state["global_step"] == 1
