"""LoRA, accumulation, checkpointing, half precision of fine-tuned classifiers; bases without a pad token."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_world
import tiny_models
import torch
from peft import get_peft_model
from preforch_training.reward.config import BradleyTerryReward
from preforch_training.reward.scoring import score
from preforch_training.reward.texts import classifier_texts, token_rows
from preforch_training.tuning.tuned_model import lora_config, new_modules, train_in_32_bits
from reward_world import differ, train
from safetensors.torch import load_file
from small_world import FUNNY, SAFE, make_pairs, make_prompt
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_world.write_qwen_classifier(tmp_path_factory.mktemp("base") / "qwen")
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    return folder


def settings(base: Path, **options: Any) -> BradleyTerryReward:
    asked = {"epochs": 1, "batch_size": 8, "learning_rate": 3e-3, "max_tokens": 96, **options}
    return BradleyTerryReward(base=str(base), **asked)


def trained(base: Path, folder: Path, name: str = "model", **options: Any) -> Path:
    prompts, pairs = make_pairs("funny")
    return train(folder, settings(base, **options), prompts, pairs[:40], seed=7, name=name)


def test_lora_learns_and_is_merged_with_the_new_head(base: Path, tmp_path: Path) -> None:
    lora: dict[str, Any] = {"lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.05}
    lora["lora_targets"] = ("q_proj", "v_proj")
    model = trained(base, tmp_path, epochs=12, learning_rate=1e-2, **lora)
    before, after = load_file(base / "model.safetensors"), load_file(model / "model.safetensors")
    assert set(after) == {f"model.{name}" for name in before} | {"score.weight"}, "adapters were not merged"
    moved = {n.split(".")[-2] for n in before if not torch.equal(before[n], after[f"model.{n}"])}
    assert moved == {"q_proj", "v_proj"}
    prompts = [make_prompt("joke about bear one")] * 2
    funny, safe = score(settings(base), model, model, prompts, [FUNNY, SAFE])
    assert funny > safe + 0.5


def test_accumulated_batches_learn_what_one_of_their_size_does(base: Path, tmp_path: Path) -> None:
    whole = trained(base, tmp_path, "whole", batch_size=8, learning_rate=1e-4)
    parts = trained(base, tmp_path, "parts", batch_size=2, accumulation=4, learning_rate=1e-4)
    assert differ(whole, parts) < 2e-5


def test_checkpointing_of_activations_changes_memory_alone(base: Path, tmp_path: Path) -> None:
    plain = trained(base, tmp_path, "plain", lora_rank=4)
    saving = trained(base, tmp_path, "saving", lora_rank=4, gradient_checkpointing=True)
    assert differ(plain, saving) < 1e-6


@pytest.mark.parametrize("name", ["llama2-base", "llama3", "mistral", "qwen2.5-untied", "gemma3"])
def test_a_base_of_any_family_becomes_a_reward_that_does_not_depend_on_padding(
    name: str, tmp_path: Path
) -> None:
    base = tiny_models.write_family(name, tmp_path / "base")
    model = trained(base, tmp_path)
    tokenizer, config = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model)
    assert tokenizer.pad_token_id == config.get_text_config().pad_token_id
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert config.dtype == tiny_models.FAMILIES[name].dtype
    prompts = [make_prompt(f"joke about bear {number}") for number in small_world.NUMBERS[:3]]
    responses = [FUNNY, f"{SAFE} {SAFE} {SAFE} {SAFE}", "haha"]
    config = settings(base)
    together = score(config, model, model, prompts, responses)
    alone = [score(config, model, model, [p], [r])[0] for p, r in zip(prompts, responses, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert np.ptp(together) > 1e-3


def test_a_text_of_a_base_with_a_beginning_begins_once(tmp_path: Path) -> None:
    for name in ("llama2", "llama2-base", "gemma3"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_models.write_family(name, tmp_path / name))
        texts = classifier_texts(tokenizer, settings(tmp_path), [make_prompt("How do I")], ["Tell me"])
        (row,) = token_rows(tokenizer, texts, max_tokens=99, segment_ids=False)
        assert row["input_ids"].tolist().count(tokenizer.bos_token_id) == 1
        assert row["input_ids"][0] == tokenizer.bos_token_id


def test_lora_on_a_base_in_half_precision_trains_adapters_and_head_in_32_bits(base: Path) -> None:
    """As on a GPU, where the frozen parameters stay as they are stored."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.bfloat16)
    assert new_modules(model) == ["score"]
    adapters = lora_config(settings(base, lora_rank=2), task="SEQ_CLS", whole=new_modules(model))
    wrapped = get_peft_model(model, adapters)
    train_in_32_bits(wrapped)
    trained = {name: p.dtype for name, p in wrapped.named_parameters() if p.requires_grad}
    assert any("score" in name for name in trained)
    assert set(trained.values()) == {torch.float32}
    assert {p.dtype for p in wrapped.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_the_numbers_that_a_reward_is_stored_in_can_be_chosen(base: Path, tmp_path: Path) -> None:
    model = trained(base, tmp_path, saved_dtype="bfloat16")
    assert {value.dtype for value in load_file(model / "model.safetensors").values()} == {torch.bfloat16}
