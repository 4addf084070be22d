"""Reward kind `function`: a Python function of prompts and responses, for rewards that can be verified by
code."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preforch_training.records import Prompt
from preforch_training.reward.config import FunctionReward


def score(
    config: FunctionReward, folder: Path, cache: Path, prompts: Sequence[Prompt], responses: Sequence[str]
) -> np.ndarray:
    """What the function returns, (N,). Raises ValueError where it cannot be loaded, or fails."""
    del folder, cache
    module, _, attribute = config.function.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward function {config.function!r} cannot be loaded: {error}") from error
    try:
        return np.asarray(function([prompt.text for prompt in prompts], list(responses)))
    except Exception as error:  # somebody else's code may raise anything
        raise ValueError(f"reward function {config.function!r} failed: {error!r}") from error
