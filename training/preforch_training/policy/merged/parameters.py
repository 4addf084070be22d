"""Policies merged in parameter space (Rewarded Soups, 2306.04488; averages of runs).

In:  policy folders of one architecture, weights that sum to 1. Out: a model with the weighted mean of their
     parameters.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel


def average(policies: Sequence[Path], weights: Sequence[float]) -> PreTrainedModel:
    """The weighted mean, computed in 32 bits and kept in the numbers of the first. Raises ValueError for
    policies whose parameters differ in name or shape."""
    merged = AutoModelForCausalLM.from_pretrained(policies[0], use_safetensors=True, dtype="auto")
    assert isinstance(merged, PreTrainedModel)
    sums = {name: weights[0] * value.float() for name, value in merged.named_parameters()}
    for policy, weight in zip(policies[1:], weights[1:], strict=True):
        model = AutoModelForCausalLM.from_pretrained(policy, use_safetensors=True, dtype="auto")
        found = dict(model.named_parameters())
        differing = sums.keys() ^ found.keys() or {
            name for name in sums if sums[name].shape != found[name].shape
        }
        if differing:
            raise ValueError(
                f"{policy} and {policies[0]} differ in {min(differing)}: only policies of one architecture "
                "can be merged"
            )
        for name, total in sums.items():
            total += weight * found[name].float()
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            parameter.copy_(sums[name])
    return merged
