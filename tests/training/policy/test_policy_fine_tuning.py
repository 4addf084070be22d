"""Fine-tuning: what the loss sees, that a kill changes nothing, and that LoRA moves the context tokens."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from preforch_models.context import ContextFormat
from preforch_models.conversation import Message
from preforch_training.policy.fine_tuning import TokenRow, fine_tune, fit_rows
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.tuning.hf_trainer import TrainingError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

FORMAT = ContextFormat(objectives=("helpful", "harmless", "humor"), encoding="levels")
WEIGHTS = {"helpful": 0.5, "harmless": 0.3, "humor": 0.2}
SETTINGS = FineTuning(steps=30, learning_rate=1e-2, batch_size=4, save_steps=4)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_policy(tmp_path_factory.mktemp("policy") / "base", FORMAT)


def rows(policy: Path) -> list[TokenRow]:
    reader = PolicyTokenizer(policy)
    return [
        TokenRow(
            tuple(reader.prompt_ids((Message(role="user", content=text),), WEIGHTS)),
            tuple(reader.response_ids(" ".join(text.split()[::-1]))),
        )
        for text in tiny.TEXTS * 4
    ]


def train(policy: Path, folder: Path, settings: FineTuning = SETTINGS) -> dict[str, torch.Tensor]:
    """The trained parameters; also what the killed process of a test runs."""
    for part in ("work", "out"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    model, _ = fine_tune(policy, rows(policy), settings, seed=3, folder=folder / "out", work=folder / "work")
    model.save_pretrained(folder / "model")
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def trained(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, train(policy, folder)


def test_a_killed_training_continues_to_the_same_weights(
    policy: Path, tmp_path: Path, trained: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    program = "import pathlib, sys, test_policy_fine_tuning as t\nt.train(*map(pathlib.Path, sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, str(policy), str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    # Beyond the first epoch: an order of rows that is drawn anew at a restart would show.
    first = tmp_path / "work" / "checkpoint-12" / "complete"
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists()
    assert not (tmp_path / "model").exists(), "the training was over before the kill"
    continued = train(policy, tmp_path)
    assert max((continued[name] - value).abs().max().item() for name, value in trained[1].items()) <= 1e-5
    steps = [
        json.loads(line).get("step") for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps[:30] == list(range(1, 31))


def test_a_training_killed_after_its_last_step_is_only_saved(policy: Path, tmp_path: Path) -> None:
    # Within an epoch: at the end of one there is nothing left to train by itself.
    settings = SETTINGS.model_copy(update={"steps": 7})
    whole = train(policy, tmp_path, settings)
    assert (tmp_path / "work" / "checkpoint-7" / "complete").exists()
    shutil.rmtree(tmp_path / "out")
    continued = train(policy, tmp_path, settings)
    assert all(torch.equal(continued[name], value) for name, value in whole.items())
    metrics = (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [entry["step"] for entry in map(json.loads, metrics) if "loss" in entry] == list(range(1, 8))


def test_a_checkpoint_that_was_not_written_whole_is_ignored(policy: Path, tmp_path: Path) -> None:
    partial = tmp_path / "work" / "checkpoint-8"
    partial.mkdir(parents=True)
    (partial / "trainer_state.json").write_text("{", encoding="utf-8")
    train(policy, tmp_path)
    assert (tmp_path / "model").exists()


def test_metrics_and_tensorboard_files_are_written(trained: tuple[Path, dict[str, torch.Tensor]]) -> None:
    out = trained[0] / "out"
    losses = [
        json.loads(line)["loss"]
        for line in (out / "metrics.jsonl").read_text().splitlines()
        if '"loss"' in line
    ]
    assert losses[-1] < losses[0]
    assert list((out / "tensorboard").glob("events.*"))


def test_only_the_response_and_its_end_are_learned(policy: Path, tmp_path: Path) -> None:
    reader = PolicyTokenizer(policy)
    other_prompts = [TokenRow(row.prompt[::-1], ()) for row in rows(policy)]
    for part in ("work", "out"):
        (tmp_path / part).mkdir()
    settings = SETTINGS.model_copy(update={"steps": 60})
    model, _ = fine_tune(
        policy, other_prompts, settings, seed=0, folder=tmp_path / "out", work=tmp_path / "work"
    )
    # Empty responses: the end token is all there is to learn, so it follows everything, also inside a prompt.
    with torch.no_grad():
        logits_LV = model(input_ids=torch.tensor([other_prompts[0].prompt])).logits[0]
    assert (logits_LV.argmax(-1) == reader.end_id).float().mean() > 0.9
    assert logits_LV.log_softmax(-1)[-1, reader.end_id] > -0.2


def test_a_loss_that_is_not_finite_stops_the_training(policy: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match="at step"):
        train(policy, tmp_path, settings)


def test_lora_moves_the_rows_of_the_template_s_tokens_and_no_other_row(policy: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"lora_rank": 4, "lora_alpha": 8.0})
    after = train(policy, tmp_path, settings)
    before = AutoModelForCausalLM.from_pretrained(policy).state_dict()
    assert set(after) <= set(before), "adapters were not merged"
    reader = PolicyTokenizer(policy)
    moved = (after["model.embed_tokens.weight"] - before["model.embed_tokens.weight"]).abs().max(
        dim=1
    ).values > 0
    used = reader.tokenizer.convert_tokens_to_ids(["<W1> 0.50", "<W2> 0.30", "<W3> 0.20"])
    template = [t for t in reader.tokenizer.get_vocab() if t.startswith(("<W", "<|im_"))]
    assert moved[used].all()
    assert set(moved.nonzero().flatten().tolist()) <= set(reader.tokenizer.convert_tokens_to_ids(template))


def test_lora_trains_a_model_whose_head_is_its_own(policy: Path, tmp_path: Path) -> None:
    untied = shutil.copytree(policy, tmp_path / "untied")
    model = AutoModelForCausalLM.from_pretrained(policy)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(untied)
    after = train(untied, tmp_path, SETTINGS.model_copy(update={"lora_rank": 4, "lora_alpha": 8.0}))
    before = AutoModelForCausalLM.from_pretrained(untied).state_dict()
    assert set(after) <= set(before), "adapters were not merged"
    tokenizer = PolicyTokenizer(untied).tokenizer
    template = [t for t in tokenizer.get_vocab() if t.startswith(("<W", "<|im_"))]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        moved = ((after[name] - before[name]).abs().max(dim=1).values > 0).nonzero().flatten().tolist()
        assert moved, f"no row of {name} moved"
        assert set(moved) <= set(tokenizer.convert_tokens_to_ids(template)), name


def test_rows_that_do_not_fit_are_left_out_and_none_fitting_is_an_error() -> None:
    short, long = TokenRow((1, 2), (3,)), TokenRow((1, 2), (3, 4))
    assert fit_rows([short, long], max_tokens=4) == [short]
    with pytest.raises(ValueError, match="none of 1 training rows fits into 4 tokens"):
        fit_rows([long], max_tokens=4)
