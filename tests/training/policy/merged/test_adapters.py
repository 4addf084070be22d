"""LoRA adapters merged with each other change what their weighted sum would change."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from preforch_models.context import ContextFormat
from preforch_training.policy.merged.adapters import (
    keep_adapter,
    read_adapter,
    weighted_sum,
    write_adapter,
)
from transformers import AutoModelForCausalLM

FORMAT = ContextFormat(objectives=("helpful", "harmless"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_policy(tmp_path_factory.mktemp("adapters") / "start", FORMAT)


def trained(
    start: Path, folder: Path, *, seed: int, rank: int, alpha: float, targets: str = "all-linear"
) -> Path:
    """A policy whose adapter has moved."""
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets if targets == "all-linear" else [targets],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(start), settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    keep_adapter(model, folder)
    return folder


def merged(start: Path, adapter: Path) -> dict[str, torch.Tensor]:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), adapter).merge_and_unload()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def test_a_sum_of_adapters_is_the_weighted_mean_of_the_merged_models(start: Path, tmp_path: Path) -> None:
    policies = [
        trained(start, tmp_path / "a", seed=1, rank=4, alpha=8),
        trained(start, tmp_path / "b", seed=2, rank=2, alpha=16),
    ]
    weights = [0.3, 0.7]
    one = weighted_sum([read_adapter(policy) for policy in policies], weights)
    write_adapter(one, tmp_path / "sum")
    assert one.rank == 6
    found = merged(start, tmp_path / "sum")
    both = [merged(start, policy / "adapter") for policy in policies]
    plain = AutoModelForCausalLM.from_pretrained(start).state_dict()
    for name, value in found.items():
        expected = sum(weight * each[name] for weight, each in zip(weights, both, strict=True))
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    assert max(float((found[name] - plain[name]).abs().max()) for name in found) > 0.01


def test_a_member_alone_is_itself(start: Path, tmp_path: Path) -> None:
    policies = [trained(start, tmp_path / str(seed), seed=seed, rank=4, alpha=8) for seed in (1, 2)]
    one = weighted_sum([read_adapter(policy) for policy in policies], [0.0, 1.0])
    write_adapter(one, tmp_path / "sum")
    found, expected = merged(start, tmp_path / "sum"), merged(start, policies[1] / "adapter")
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)


def test_without_lora_nothing_is_kept_and_nothing_can_be_merged(start: Path, tmp_path: Path) -> None:
    keep_adapter(AutoModelForCausalLM.from_pretrained(start), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="has no adapter; only what was trained with lora_rank"):
        read_adapter(tmp_path)


def test_adapters_that_change_other_matrices_are_refused(start: Path, tmp_path: Path) -> None:
    policies = [
        trained(start, tmp_path / "a", seed=1, rank=4, alpha=8),
        trained(start, tmp_path / "b", seed=2, rank=4, alpha=8, targets="q_proj"),
    ]
    with pytest.raises(ValueError, match="change the same matrices, but base_model"):
        weighted_sum([read_adapter(policy) for policy in policies], [0.5, 0.5])


def test_what_is_more_than_matrices_is_refused(start: Path, tmp_path: Path) -> None:
    settings = LoraConfig(
        r=4,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        trainable_token_indices={"embed_tokens": [1, 2]},
    )
    keep_adapter(get_peft_model(AutoModelForCausalLM.from_pretrained(start), settings), tmp_path)
    with pytest.raises(ValueError, match="which no weighted sum of adapters can hold"):
        read_adapter(tmp_path)


def test_its_settings_are_those_of_peft(start: Path, tmp_path: Path) -> None:
    policy = trained(start, tmp_path / "a", seed=1, rank=4, alpha=8)
    write_adapter(weighted_sum([read_adapter(policy)] * 2, [0.5, 0.5]), tmp_path / "sum")
    settings = json.loads((tmp_path / "sum" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 8, 8)
