"""The order of an epoch: random, the same for any number of ranks, its last batch filled up."""

from typing import Any

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from preforch_training.distributed.training import FilledOrder, tie_again, without_parameters
from preforch_training.policy.base_model import new_model
from tiny import TINY
from transformers import PreTrainedModel


def random_order(rows: int) -> SeedableRandomSampler:
    return SeedableRandomSampler(range(rows), data_seed=7, generator=torch.Generator())


@pytest.mark.parametrize(("rows", "whole"), [(8, 8), (9, 12), (11, 12), (3, 4), (1, 4)])
def test_an_epoch_ends_with_its_first_rows_until_the_last_batch_is_whole(rows: int, whole: int) -> None:
    order = FilledOrder(random_order(rows), batch_size=4)
    found = list(order)
    assert len(order) == len(found) == whole
    assert sorted(found[:rows]) == list(range(rows))
    assert found[rows:] == [found[i % rows] for i in range(whole - rows)]


def test_epochs_differ_and_can_be_drawn_again() -> None:
    order = FilledOrder(random_order(9), batch_size=4)
    order.set_epoch(1)
    first = list(order)
    order.set_epoch(2)
    assert list(order) != first
    order.set_epoch(1)
    assert list(order) == first


def test_a_copy_without_parameters_takes_them_again_with_their_ties() -> None:
    model: PreTrainedModel = new_model(300, TINY, max_model_len=16, seed=0)
    copy: Any = without_parameters(model)
    assert {parameter.device.type for parameter in copy.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    copy.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    tie_again(copy)
    assert copy.get_input_embeddings().weight is copy.get_output_embeddings().weight
    ids = torch.arange(5)[None]
    torch.testing.assert_close(copy(ids).logits, model(ids).logits)
