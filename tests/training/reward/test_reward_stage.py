"""Stage `reward`: both trained kinds learn, never see their fold, and are the same after an interruption."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
from preforch_models.manifest import read_manifest, verify
from preforch_training.config import RunConfig
from preforch_training.data.splits import fold_of
from preforch_training.hf_trainer import last_checkpoint
from preforch_training.policy.base_model import train_tokenizer
from preforch_training.records import PreferencePair, Prompt, read_records
from preforch_training.reward.bradley_terry import pair_tokens, train_classifier
from preforch_training.reward.scoring import BradleyTerryReward, fold_folder, score
from preforch_training.run import Run
from safetensors.numpy import load_file
from small_world import FUNNY, NAMES, SAFE, build, make_pairs, make_prompt, make_run, pair_rows, write_rows
from transformers import AutoModel, AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

FOLDS = 2


def pair_head(encoder: Path, **options: Any) -> dict[str, Any]:
    head = {
        "kind": "pair_head",
        "encoder": str(encoder),
        "hidden": 16,
        "epochs": 10,
        "batch_size": 16,
        **options,
    }
    return dict.fromkeys(NAMES, head)


def swap(row: dict[str, str]) -> dict[str, str]:
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def weights(folder: Path) -> dict[str, np.ndarray]:
    return dict(load_file(folder / "model.safetensors"))


def differ(first: Path, second: Path) -> float:
    """Largest difference of two checkpoints."""
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    return max(float(np.abs(one[key] - two[key]).max()) for key in one)


# The pair head.


@pytest.fixture(scope="module")
def heads(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig]:
    """A run with trained pair heads."""
    run, config = make_run(tmp_path_factory.mktemp("heads"), reward=pair_head(encoder))
    build("data", run, config)
    build("reward", run, config)
    return run, config


def test_a_pair_head_learns_a_separable_problem(heads: tuple[Run, RunConfig]) -> None:
    run, config = heads
    for name, (better, worse) in {"funny": (FUNNY, SAFE), "safe": (SAFE, FUNNY)}.items():
        accuracies = verify(run.reward(name), kind="reward").metrics["validation_pair_accuracy"]
        assert accuracies == {"fold 0": 1.0, "fold 1": 1.0, "full": 1.0}
        prompts = [make_prompt("joke about hotel"), make_prompt("danger near island")]
        high, low = (
            score(config.reward[name], run.reward(name), run.encoder_cache, prompts, [text] * 2, None)
            for text in (better, worse)
        )
        assert high.min() > low.max() + 0.2


def test_an_untrained_pair_head_does_not_solve_it(encoder: Path, tmp_path: Path) -> None:
    run, config = make_run(tmp_path, reward=pair_head(encoder, epochs=1, learning_rate=0.0))
    build("data", run, config)
    build("reward", run, config)
    metrics = [read_manifest(run.reward(name)).metrics["validation_pair_accuracy"].values() for name in NAMES]
    assert any(value < 1 for values in metrics for value in values)


def test_rewards_of_a_pair_head_do_not_depend_on_order_or_company(heads: tuple[Run, RunConfig]) -> None:
    run, config = heads
    prompts = [make_prompt(question) for question in small_world.questions()[:9]]
    responses = [FUNNY, SAFE, "haha"] * 3

    def rewards(rows: list[int]) -> np.ndarray:
        asked, answers = [prompts[i] for i in rows], [responses[i] for i in rows]
        return score(config.reward["funny"], run.reward("funny"), run.encoder_cache, asked, answers, 0)

    together = rewards(list(range(9)))
    np.testing.assert_allclose(rewards(list(range(9))[::-1])[::-1], together, atol=1e-4)
    np.testing.assert_allclose([rewards([i])[0] for i in range(9)], together, atol=1e-4)


def test_the_offset_that_the_loss_leaves_free_is_pinned_near_zero(heads: tuple[Run, RunConfig]) -> None:
    run, config = heads
    prompts = [make_prompt(question) for question in small_world.questions()]
    both = [
        score(
            config.reward["funny"],
            run.reward("funny"),
            run.encoder_cache,
            prompts,
            [text] * len(prompts),
            None,
        )
        for text in (FUNNY, SAFE)
    ]
    assert abs(np.mean(both)) < 0.25 * np.ptp(both)


def test_a_fold_model_never_saw_its_fold(heads: tuple[Run, RunConfig], encoder: Path, tmp_path: Path) -> None:
    """With the pairs of fold 0 turned round, the model of fold 0 is the same to the last bit; the others are not."""
    run, _ = heads
    prompts = read_records(run.data / "prompts.jsonl", Prompt)
    folds = {prompt.id: fold_of(prompt.messages, FOLDS) for prompt in prompts}
    assert set(folds.values()) == {0, 1}
    other, config = make_run(tmp_path, reward=pair_head(encoder))
    build("data", other, config)
    pairs = read_records(other.data / "pairs.jsonl", PreferencePair)
    texts = {pair.id: folds[pair.prompt_id] for pair in pairs if pair.split == "train"}
    rows = [
        swap(row) if texts.get(pair.id) == 0 else row for row, pair in zip(pair_rows(), pairs, strict=True)
    ]
    write_rows(tmp_path / "pairs.jsonl", rows)
    build("data", other, config)
    build("reward", other, config)
    assert differ(fold_folder(run.reward("funny"), 0), fold_folder(other.reward("funny"), 0)) == 0
    assert differ(fold_folder(run.reward("funny"), 1), fold_folder(other.reward("funny"), 1)) > 1e-3
    assert differ(run.reward("funny"), other.reward("funny")) > 1e-3


def test_a_reward_that_is_given_is_only_written_down(tmp_path: Path) -> None:
    run, config = make_run(tmp_path)
    build("reward", run, config)
    written = json.loads((run.reward("funny") / "reward.json").read_text(encoding="utf-8"))
    assert written == {"kind": "function", "function": "small_world:funny"}
    assert verify(run.reward("funny"), kind="reward").inputs == {}


# Fine-tuning with TRL.


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
    train_classifier(folder / "model", folder / "work", classifier(base), *make_pairs("funny"), seed=7)
    return folder / "model"


def rewards_of(base: Path, model: Path, responses: list[str]) -> np.ndarray:
    prompts = [make_prompt(f"joke about bear {number}") for number in small_world.NUMBERS][: len(responses)]
    return score(classifier(base), model, model, prompts, responses, None)


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
from preforch_training.reward.bradley_terry import train_classifier
from test_reward import classifier
folder, base = Path(sys.argv[1]), Path(sys.argv[2])
train_classifier(folder / "model", folder / "work", classifier(base), *small_world.make_pairs("funny"), seed=7)
"""


def test_a_killed_training_continues_to_the_same_result(base: Path, trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAIN, str(tmp_path), str(base)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while not list(tmp_path.glob("work/checkpoint-*/complete")) and process.poll() is None:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text(encoding="utf-8")[-2000:]
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text(encoding="utf-8")[-2000:]
    assert not (tmp_path / "model").exists()
    # A mark in the checkpoint shows afterwards that it was used.
    state_file = Path(last_checkpoint(tmp_path / "work") or "") / "trainer_state.json"
    state = json.loads(state_file.read_text(encoding="utf-8"))
    state["log_history"].append({"step": 0, "loss": 123.0})
    state_file.write_text(json.dumps(state), encoding="utf-8")
    train_classifier(tmp_path / "model", tmp_path / "work", classifier(base), *make_pairs("funny"), seed=7)
    assert differ(trained, tmp_path / "model") < 1e-5
    assert '{"step": 0, "loss": 123.0}' in (tmp_path / "model" / "metrics.jsonl").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_model_and_another_one_does_not(base: Path, tmp_path: Path) -> None:
    prompts, pairs = make_pairs("funny")
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        settings = classifier(base, epochs=1)
        train_classifier(tmp_path / name, tmp_path / f"{name}.work", settings, prompts, pairs[:16], seed=seed)
    assert differ(tmp_path / "a", tmp_path / "b") == 0
    assert differ(tmp_path / "a", tmp_path / "c") > 1e-5


def test_long_pairs_are_truncated_at_the_beginning_and_never_dropped(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base, truncation_side="left")
    prompt = make_prompt("old text " * 60 + "joke")
    pair = PreferencePair(
        id="0", prompt_id=prompt.id, objective="funny", chosen=FUNNY, rejected=SAFE, split="train"
    )
    tokens = pair_tokens(tokenizer, prompt, pair, 40)
    assert {side: len(ids) for side, ids in tokens.items()} == {"chosen_ids": 40, "rejected_ids": 40}
    assert tokenizer.decode(tokens["chosen_ids"]).rstrip().endswith(f"joke [assistant] {FUNNY}")
    train_classifier(
        tmp_path / "model",
        tmp_path / "work",
        classifier(base, epochs=1, max_tokens=40),
        {prompt.id: prompt},
        [pair] * 8,
        seed=1,
    )
    state = json.loads(
        next(tmp_path.glob("work/checkpoint-*/trainer_state.json")).read_text(encoding="utf-8")
    )
    assert state["global_step"] == 1


def test_a_tokenizer_without_a_pad_token_is_refused(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(small_world.questions(), vocabulary=300)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "num_labels": 1}
    config = GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **sizes)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no pad token; without one, scores depend on padding"):
        train_classifier(
            tmp_path / "model", tmp_path / "work", classifier(tmp_path), *make_pairs("funny"), seed=1
        )
