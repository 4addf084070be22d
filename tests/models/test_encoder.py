"""Pooling: padding never counts."""

import pytest
import torch
from preforch_models.encoder import pool

HIDDEN = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
MASK = torch.tensor([[1, 1, 0]])


def test_the_mean_is_over_the_tokens_that_are_not_padding() -> None:
    torch.testing.assert_close(pool(HIDDEN, MASK, "mean"), torch.tensor([[2.0, 3.0]]))


def test_cls_is_the_first_token() -> None:
    torch.testing.assert_close(pool(HIDDEN, MASK, "cls"), torch.tensor([[1.0, 2.0]]))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_what_stands_in_the_padding_changes_nothing(pooling: str) -> None:
    other = HIDDEN.clone()
    other[:, 2] = -7.0
    torch.testing.assert_close(pool(other, MASK, pooling), pool(HIDDEN, MASK, pooling))  # type: ignore[arg-type]


def test_a_text_of_nothing_but_padding_gives_zeros_and_no_nan() -> None:
    torch.testing.assert_close(pool(HIDDEN, torch.zeros_like(MASK), "mean"), torch.zeros(1, 2))
