"""A policy of any size with random weights: as much work for the engine as a trained one of that size.

In:  a trained policy, whose tokenizer, context and chat template it keeps. Out: a policy folder.
"""

from pathlib import Path

from preforch_models.policy_card import read_policy_card
from preforch_training.policy.base_model import new_model
from preforch_training.policy.checkpoint import read_policy_info, save_policy
from preforch_training.policy.config import Scratch
from preforch_training.policy.tokenizer import load_tokenizer

HEAD_WIDTH = 64


def write_random_policy(policy: Path, target: Path, *, width: int, layers: int) -> Path:
    """Write it. The width is a multiple of 64, the width of an attention head."""
    card = read_policy_card(policy)
    tokenizer = load_tokenizer(policy)
    size = Scratch(width=width, layers=layers, heads=width // HEAD_WIDTH, inner=4 * width)
    model = new_model(len(tokenizer), size, max_model_len=card.max_model_len, seed=0)
    target.mkdir()
    save_policy(
        target,
        model,
        tokenizer,
        read_policy_info(policy),
        objectives=card.objectives,
        conditioning=card.conditioning,
        max_model_len=card.max_model_len,
    )
    return target
