"""The pair head: one reward a row, rows do not see each other, the same after a round trip."""

from pathlib import Path

import pytest
import torch
from preforch_models.reward_model import PairHead, PairHeadConfig
from torch import nn

HIDDEN = (5, 0)
"""An MLP, a linear head."""


def make_head(hidden: int) -> tuple[PairHead, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = PairHead(PairHeadConfig(size=6, hidden=hidden)).eval()
        return head, torch.randn(4, 6), torch.randn(4, 6)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_rewards_are_one_number_a_row_and_independent_of_the_other_rows(hidden: int) -> None:
    head, prompts, responses = make_head(hidden)
    rewards = head(prompts, responses)
    assert rewards.shape == (4,)
    torch.testing.assert_close(head(prompts[2:3], responses[2:3]), rewards[2:3])


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_reward_depends_on_prompt_and_response(hidden: int) -> None:
    head, prompts, responses = make_head(hidden)
    rewards = head(prompts, responses)
    assert not torch.allclose(head(prompts, responses.flip(0)), rewards)
    assert not torch.allclose(head(prompts.flip(0), responses), rewards)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_saved_head_gives_the_same_rewards(tmp_path: Path, hidden: int) -> None:
    head, prompts, responses = make_head(hidden)
    head.save_pretrained(tmp_path)
    loaded = PairHead.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(prompts, responses), head(prompts, responses), atol=0, rtol=0)


def test_a_linear_head_is_linear_in_the_response_and_in_its_product_with_the_prompt() -> None:
    head, prompts, responses = make_head(0)
    assert isinstance(head.layers, nn.Linear)
    weight, bias = head.layers.weight[0], head.layers.bias[0]
    expected = responses @ weight[:6] + (prompts * responses) @ weight[6:] + bias
    torch.testing.assert_close(head(prompts, responses), expected)
    assert [name for name, _ in head.named_parameters()] == ["layers.weight", "layers.bias"]


def test_a_head_knows_the_layers_of_its_encoder(tmp_path: Path) -> None:
    PairHead(PairHeadConfig(size=6, hidden=0, layers=(-2, -1))).save_pretrained(tmp_path)
    assert PairHeadConfig.from_pretrained(tmp_path).layers == [-2, -1]
    assert PairHeadConfig().layers == [-1]
