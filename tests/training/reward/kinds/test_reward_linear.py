"""The linear Bradley-Terry head: what it recovers, what it does not depend on, and what it refuses."""

import numpy as np
import pytest
import torch
from preforch_training.reward.kinds.linear import best_penalty, fit_linear_reward, fit_margins
from torch.nn import functional

Pairs = tuple[torch.Tensor, torch.Tensor, np.ndarray]


def make_pairs(weight_F: torch.Tensor, *, pairs: int = 2000, seed: int = 0) -> Pairs:
    """Pairs drawn by sigma(weight.margin), two for each prompt."""
    generator = torch.Generator().manual_seed(seed)
    left_NF, right_NF = (torch.randn(pairs, len(weight_F), generator=generator) for _ in range(2))
    wins_N = torch.rand(pairs, generator=generator) < torch.sigmoid((left_NF - right_NF) @ weight_F)
    chosen_NF = torch.where(wins_N[:, None], left_NF, right_NF)
    rejected_NF = torch.where(wins_N[:, None], right_NF, left_NF)
    return chosen_NF, rejected_NF, np.arange(pairs) // 2


TRUE_F = torch.tensor([1.0, -0.5, 0.0, 0.25])


def test_a_known_direction_and_its_length_are_recovered() -> None:
    weight_F, _ = fit_linear_reward(*make_pairs(TRUE_F, pairs=8000), penalties=(1e-4,))
    torch.testing.assert_close(weight_F, TRUE_F, atol=0.06, rtol=0)


def test_features_on_any_scale_get_the_same_rewards_and_a_constant_one_gets_none() -> None:
    chosen_NF, rejected_NF, group_N = make_pairs(TRUE_F)
    scale_F, shift_F = torch.tensor([10.0, 0.1, 1.0, 3.0]), torch.tensor([5.0, -1.0, 0.0, 2.0])
    plain_F, _ = fit_linear_reward(chosen_NF, rejected_NF, group_N, penalties=(0.1,))
    scaled_F, _ = fit_linear_reward(
        chosen_NF * scale_F + shift_F, rejected_NF * scale_F + shift_F, group_N, penalties=(0.1,)
    )
    torch.testing.assert_close(scaled_F * scale_F, plain_F, atol=1e-3, rtol=0)
    ones_N1 = torch.ones(len(group_N), 1)
    wider = [torch.cat([side_NF, ones_N1], dim=1) for side_NF in (chosen_NF, rejected_NF)]
    wider_F, _ = fit_linear_reward(wider[0], wider[1], group_N, penalties=(0.1,))
    assert wider_F[-1] == 0
    torch.testing.assert_close(wider_F[:-1], plain_F, atol=1e-3, rtol=0)


def test_the_order_of_the_pairs_does_not_matter() -> None:
    chosen_NF, rejected_NF, group_N = make_pairs(TRUE_F)
    order_N = torch.randperm(len(group_N), generator=torch.Generator().manual_seed(1))
    penalties = (1.0, 0.1, 0.01, 0.001)
    weight_F, bias = fit_linear_reward(chosen_NF, rejected_NF, group_N, penalties=penalties)
    again_F, again = fit_linear_reward(
        chosen_NF[order_N], rejected_NF[order_N], group_N[order_N.numpy()], penalties=penalties[::-1]
    )
    torch.testing.assert_close(again_F, weight_F, atol=1e-3, rtol=0)
    torch.testing.assert_close(again, bias, atol=1e-3, rtol=0)


def test_the_fit_is_a_minimum_wherever_it_starts() -> None:
    chosen_NF, rejected_NF, _ = make_pairs(TRUE_F)
    margin_NF = chosen_NF - rejected_NF

    def loss(weight_F: torch.Tensor) -> float:
        return float(-functional.logsigmoid(margin_NF @ weight_F).mean() + 0.1 * weight_F.pow(2).sum() / 2)

    found_F = fit_margins(margin_NF, 0.1, start=None)
    torch.testing.assert_close(
        fit_margins(margin_NF, 0.1, start=torch.full((4,), 3.0)), found_F, atol=1e-3, rtol=0
    )
    for step in 0.05 * torch.cat([torch.eye(4), -torch.eye(4)]):
        assert loss(found_F + step) > loss(found_F)


def test_the_bias_makes_the_mean_reward_zero() -> None:
    chosen_NF, rejected_NF, group_N = make_pairs(TRUE_F)
    both_MF = torch.cat([chosen_NF, rejected_NF]) + 7
    weight_F, bias = fit_linear_reward(both_MF[:2000], both_MF[2000:], group_N, penalties=(0.1,))
    assert abs(bias) > 1
    assert (both_MF @ weight_F + bias).mean().abs() < 1e-4


def test_the_penalty_is_the_one_with_the_least_loss_on_held_out_margins() -> None:
    chosen_NF, rejected_NF, _ = make_pairs(0.2 * torch.ones(40), pairs=240)
    margin_NF = chosen_NF - rejected_NF
    penalties = (0.0001, 10.0, 0.1)
    losses = {
        penalty: -functional.logsigmoid(margin_NF[60:] @ fit_margins(margin_NF[:60], penalty, start=None))
        .mean()
        .item()
        for penalty in penalties
    }
    assert (
        best_penalty(margin_NF[:60], margin_NF[60:], penalties) == min(losses, key=lambda p: losses[p]) == 0.1
    )


def test_pairs_of_one_prompt_never_choose_a_penalty_for_each_other() -> None:
    """Every prompt has its own random feature: within a prompt it says all, across prompts nothing."""
    generator = torch.Generator().manual_seed(0)
    prompts, repeats = 60, 10
    group_N = np.repeat(np.arange(prompts), repeats)
    chosen_NF = 0.5 * torch.randn(prompts, 60, generator=generator).repeat_interleave(repeats, dim=0)
    rejected_NF = torch.zeros_like(chosen_NF)
    penalties = (10.0, 0.0001)
    by_prompt_F, _ = fit_linear_reward(chosen_NF, rejected_NF, group_N, penalties=penalties)
    by_row_F, _ = fit_linear_reward(chosen_NF, rejected_NF, np.arange(len(group_N)), penalties=penalties)
    assert by_prompt_F.norm() < 0.2 * by_row_F.norm()


def test_pairs_of_one_prompt_alone_are_refused() -> None:
    chosen_NF, rejected_NF, group_N = make_pairs(TRUE_F, pairs=10)
    with pytest.raises(ValueError, match="pairs of at least 2 prompts"):
        fit_linear_reward(chosen_NF, rejected_NF, np.zeros_like(group_N), penalties=(1.0, 0.1))
    fit_linear_reward(chosen_NF, rejected_NF, np.array(["a", "b"] * 5), penalties=(1.0, 0.1))
