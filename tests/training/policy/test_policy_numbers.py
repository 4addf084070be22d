"""Fine-tuning in 32 bits whatever the checkpoint holds, and settings of LoRA that do what they say."""

from pathlib import Path

import pytest
import tiny_models
import torch
from peft import PeftModel, get_peft_model
from preforch_models.context import ContextFormat
from preforch_models.conversation import Message
from preforch_training.policy.fine_tuning import TokenRow, fine_tune
from preforch_training.policy.settings.fine_tuning import FineTuning
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.tuning.options import Tuning
from preforch_training.tuning.tuned_model import (
    embedding_rows,
    lora_config,
    memory_arguments,
    show_bias,
    train_in_32_bits,
)
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

FORMAT = ContextFormat(objectives=("helpful", "harmless"))
WEIGHTS = {"helpful": 0.7, "harmless": 0.3}
SETTINGS = FineTuning(steps=3, learning_rate=1e-2, batch_size=2, lora_alpha=8)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_family_policy(
        "qwen2.5-untied", tmp_path_factory.mktemp("numbers") / "policy", FORMAT
    )


def trained(policy: Path, folder: Path, **settings: object) -> dict[str, torch.Tensor]:
    """Parameters after a short training."""
    reader = PolicyTokenizer(policy)
    prompt = reader.prompt_ids([Message(role="user", content="How do I")], WEIGHTS)
    rows = [
        TokenRow(tuple(prompt), tuple(reader.response_ids(text)))
        for text in ("Tell me", "I feel", "a tyre", "fox")
    ]
    for part in ("work", "out"):
        (folder / part).mkdir(parents=True)
    asked = SETTINGS.model_copy(update=settings)
    model, _ = fine_tune(policy, rows, asked, seed=0, folder=folder / "out", work=folder / "work")
    parameters: dict[str, torch.Tensor] = model.state_dict()
    return parameters


def test_steps_that_bfloat16_cannot_hold_are_not_lost(policy: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    before = AutoModelForCausalLM.from_pretrained(policy).state_dict()[name]
    after = trained(policy, tmp_path, learning_rate=1e-6, saved_dtype="float32")[name]
    assert (before.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    step = (after - before.float()).abs()
    assert 1e-7 < step.mean() < 1e-5
    assert (after.bfloat16() == before).float().mean() > 0.9


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_batches_that_are_accumulated_learn_what_one_of_their_size_does(
    policy: Path, tmp_path: Path, lora_rank: int
) -> None:
    one = trained(policy, tmp_path / "one", batch_size=4, lora_rank=lora_rank, saved_dtype="float32")
    four = trained(
        policy, tmp_path / "four", batch_size=1, accumulation=4, lora_rank=lora_rank, saved_dtype="float32"
    )
    assert max((one[name] - four[name]).abs().max().item() for name in one) < 2e-4


def test_checkpointing_of_activations_changes_memory_alone(policy: Path, tmp_path: Path) -> None:
    plain = trained(policy, tmp_path / "plain", lora_rank=4)
    saving = trained(policy, tmp_path / "saving", lora_rank=4, gradient_checkpointing=True)
    assert all(torch.equal(plain[name], saving[name]) for name in plain)


def test_lora_moves_the_targets_that_it_is_given(policy: Path, tmp_path: Path) -> None:
    before = AutoModelForCausalLM.from_pretrained(policy).state_dict()
    after = trained(policy, tmp_path, lora_rank=4, lora_targets=("q_proj", "v_proj"), lora_dropout=0.1)
    moved = {
        name.split(".")[-2]
        for name in after
        if "layers" in name and not torch.equal(after[name], before[name])
    }
    assert moved == {"q_proj", "v_proj"}


def test_targets_that_a_model_lacks_are_named(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="query_key_value"):
        trained(policy, tmp_path, lora_rank=4, lora_targets=("query_key_value",))


def test_lora_takes_rank_alpha_and_dropout_from_the_settings() -> None:
    settings = Tuning(lora_rank=3, lora_alpha=7, lora_dropout=0.25)
    adapters = lora_config(settings, task="CAUSAL_LM")
    assert adapters is not None
    assert (adapters.r, adapters.lora_alpha, adapters.lora_dropout) == (3, 7, 0.25)
    assert lora_config(Tuning(), task="CAUSAL_LM") is None


def test_checkpointing_goes_by_the_name_that_transformers_has() -> None:
    arguments = memory_arguments(Tuning(gradient_checkpointing=True, accumulation=3))
    assert arguments["gradient_accumulation_steps"] == 3
    assert [name for name, value in arguments.items() if value is True] in (
        ["gradient_checkpointing"],
        ["activation_checkpointing"],
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lora_on_a_model_in_half_precision_is_trained_in_32_bits(policy: Path, dtype: torch.dtype) -> None:
    """As on a GPU, where the frozen parameters stay as they are stored."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=dtype)
    rows = embedding_rows(model, [1, 2])
    assert list(rows) == ["model.embed_tokens", "lm_head"]
    wrapped = get_peft_model(model, lora_config(Tuning(lora_rank=2), task="CAUSAL_LM", rows=rows))
    train_in_32_bits(wrapped)
    trained = {name: p.dtype for name, p in wrapped.named_parameters() if p.requires_grad}
    assert any("trainable_tokens" in name for name in trained)
    assert set(trained.values()) == {torch.float32}
    assert {p.dtype for p in wrapped.parameters() if not p.requires_grad} == {dtype}


def test_a_head_keeps_its_bias_under_lora_and_one_without_shows_none() -> None:
    small = {"vocab_size": 40, "num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 8}
    phi = PhiForCausalLM(PhiConfig(**small, intermediate_size=8))
    tied = LlamaForCausalLM(LlamaConfig(**small, intermediate_size=8, tie_word_embeddings=True))
    for model, head, has_bias in ((phi, "lm_head", True), (tied, "model.embed_tokens", False)):
        bias = model.get_output_embeddings().bias
        adapters = lora_config(Tuning(lora_rank=2), task="CAUSAL_LM", rows={head: [1, 2]})
        wrapped = get_peft_model(model, adapters)
        assert isinstance(wrapped, PeftModel)
        names = [name for name, _ in wrapped.named_parameters()]
        show_bias(wrapped)
        assert (bias is not None) == has_bias
        assert wrapped.get_output_embeddings().bias is bias
        assert [name for name, _ in wrapped.named_parameters()] == names
