"""Pooling: padding never counts. Layers: pooled apart, then joined."""

import pytest
import torch
from preforch_models.encoder import check_layers, encode, pool
from preforch_models.orchestrator_options import LAST, Pooling
from transformers import BertConfig, BertModel

HIDDEN = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
MASK = torch.tensor([[1, 1, 0]])


def test_the_mean_is_over_the_tokens_that_are_not_padding() -> None:
    torch.testing.assert_close(pool(HIDDEN, MASK, "mean"), torch.tensor([[2.0, 3.0]]))


def test_cls_is_the_first_token() -> None:
    torch.testing.assert_close(pool(HIDDEN, MASK, "cls"), torch.tensor([[1.0, 2.0]]))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_what_stands_in_the_padding_changes_nothing(pooling: Pooling) -> None:
    other = HIDDEN.clone()
    other[:, 2] = -7.0
    torch.testing.assert_close(pool(other, MASK, pooling), pool(HIDDEN, MASK, pooling))


def test_a_text_of_nothing_but_padding_gives_zeros_and_no_nan() -> None:
    torch.testing.assert_close(pool(HIDDEN, torch.zeros_like(MASK), "mean"), torch.zeros(1, 2))


@pytest.fixture
def bert() -> BertModel:
    """A random BERT of two layers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertModel(
            BertConfig(
                vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8
            )
        ).eval()


IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
IDS_MASK = (IDS != 0).long()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("layers", [(-1, 0), (0, 1, 2), (-2,), (2, -3)])
def test_joined_layers_are_the_pooled_states_one_after_the_other(
    bert: BertModel, pooling: Pooling, layers: tuple[int, ...]
) -> None:
    with torch.inference_mode():
        states = bert(input_ids=IDS, attention_mask=IDS_MASK, output_hidden_states=True).hidden_states
        found = encode(bert, IDS, IDS_MASK, pooling, layers)
    assert found.shape == (2, 8 * len(layers))
    for place, layer in enumerate(layers):
        part = found[:, 8 * place : 8 * (place + 1)]
        for row, tokens in enumerate(IDS_MASK.sum(dim=1)):
            expected = states[layer][row, :tokens].mean(dim=0) if pooling == "mean" else states[layer][row, 0]
            torch.testing.assert_close(part[row], expected)


def test_the_last_layer_alone_is_the_last_hidden_state(bert: BertModel) -> None:
    with torch.inference_mode():
        before = pool(bert(input_ids=IDS, attention_mask=IDS_MASK).last_hidden_state, IDS_MASK, "mean")
        for layers in (LAST, (2,)):
            torch.testing.assert_close(encode(bert, IDS, IDS_MASK, "mean", layers), before, atol=0, rtol=0)
        torch.testing.assert_close(encode(bert, IDS, IDS_MASK, "mean"), before, atol=0, rtol=0)


@pytest.mark.parametrize("layers", [[-1], [0, 12], [-13, 12], [3, 2, 1]])
def test_layers_of_the_encoder_are_taken_in_their_order(layers: list[int]) -> None:
    assert check_layers(layers, 12) == tuple(layers)


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_does_not_exist_names_the_allowed_ones(layer: int) -> None:
    with pytest.raises(
        ValueError, match=f"layer {layer} does not exist; the encoder has 0 to 2, or -1 to -3"
    ):
        check_layers([-1, layer], 2)


@pytest.mark.parametrize("layers", [[], [1, 1], [-1, 2]])
def test_no_layer_and_one_layer_twice_are_refused(layers: list[int]) -> None:
    with pytest.raises(ValueError, match="one or more different ones of 0 to 2"):
        check_layers(layers, 2)
