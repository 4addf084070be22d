"""The pair head: one reward a row, rows do not see each other, the same after a round trip."""

from pathlib import Path

import torch
from preforch_models.reward_model import PairHead, PairHeadConfig


def make_head() -> tuple[PairHead, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = PairHead(PairHeadConfig(size=6, hidden=5)).eval()
        return head, torch.randn(4, 6), torch.randn(4, 6)


def test_rewards_are_one_number_a_row_and_independent_of_the_other_rows() -> None:
    head, prompts, responses = make_head()
    rewards = head(prompts, responses)
    assert rewards.shape == (4,)
    torch.testing.assert_close(head(prompts[2:3], responses[2:3]), rewards[2:3])


def test_a_reward_depends_on_prompt_and_response() -> None:
    head, prompts, responses = make_head()
    rewards = head(prompts, responses)
    assert not torch.allclose(head(prompts, responses.flip(0)), rewards)
    assert not torch.allclose(head(prompts.flip(0), responses), rewards)


def test_a_saved_head_gives_the_same_rewards(tmp_path: Path) -> None:
    head, prompts, responses = make_head()
    head.save_pretrained(tmp_path)
    loaded = PairHead.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(prompts, responses), head(prompts, responses), atol=0, rtol=0)
