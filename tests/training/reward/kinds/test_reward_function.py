"""Reward kind `function`: called with prompts and responses, and named where it is broken."""

import numpy as np
import pytest
from preforch_training.reward.config import FunctionReward
from reward_world import reward


def test_a_function_is_called_with_prompts_and_responses() -> None:
    np.testing.assert_array_equal(reward(FunctionReward(function="small_world:funny")), [1, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "small_world:not_a_number",
            r"function reward of response 0 is nan, it must be finite and less than 1e\+100; prompt 'joke "
            r"about bear",
        ),
        ("small_world:one_too_few", r"function reward: expected 5 numbers, got an array of shape \(4,\)"),
        (
            "small_world:fails",
            r"reward function 'small_world:fails' failed: ZeroDivisionError\('no responses'\)",
        ),
        ("small_world:nothing", "reward function 'small_world:nothing' cannot be loaded"),
        ("no_such_module:nothing", "reward function 'no_such_module:nothing' cannot be loaded"),
    ],
)
def test_a_broken_function_is_named(function: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reward(FunctionReward(function=function))
