"""Policies merged in parameter space."""

from pathlib import Path

import pytest
import tiny
import torch
from preforch_models.context import ContextFormat
from preforch_training.policy.merged.parameters import average
from transformers import AutoModelForCausalLM

FORMAT = ContextFormat(objectives=("helpful", "harmless", "humor"))


def write(folder: Path, *, add: float) -> Path:
    tiny.write_policy(folder, FORMAT)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(add)
    model.save_pretrained(folder)
    return folder


def test_it_is_the_weighted_mean(tmp_path: Path) -> None:
    policies = [write(tmp_path / str(add), add=add) for add in (0.0, 1.0, 4.0)]
    merged = average(policies, [0.5, 0.25, 0.25])
    start = AutoModelForCausalLM.from_pretrained(policies[0])
    for one, other in zip(merged.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(one, other + 1.25)


def test_numbers_are_kept_as_the_first_has_them(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, add=0.0) for name in ("a", "b"))
    AutoModelForCausalLM.from_pretrained(first).to(torch.bfloat16).save_pretrained(first)
    assert {value.dtype for value in average([first, second], [0.5, 0.5]).parameters()} == {torch.bfloat16}


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a", add=0.0)
    second = tmp_path / "b"
    tiny.write_policy(second, FORMAT)
    model = AutoModelForCausalLM.from_pretrained(second)
    model.resize_token_embeddings(model.config.vocab_size + 8)
    model.save_pretrained(second)
    with pytest.raises(ValueError, match=r"differ in model\.embed_tokens\.weight.*one architecture"):
        average([first, second], [0.5, 0.5])
