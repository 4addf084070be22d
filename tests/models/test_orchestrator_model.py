"""The orchestrator: log weights on the simplex, uniform at the start, the same after a round trip."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from preforch_models.orchestrator_model import OrchestratorModel, new_orchestrator
from preforch_training.bundle.onnx_export import export_onnx
from transformers import BertConfig, BertModel

NAMES = ("helpful", "harmless", "humor")
IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
MASK = (IDS != 0).long()


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A tiny random encoder on disk."""
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config, add_pooling_layer=True).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_the_exponentials_are_weights_on_the_simplex() -> None:
    weights = tiny.orchestrator(NAMES, 40)(IDS, MASK).exp()
    assert weights.shape == (2, 3)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2))


def test_padding_changes_no_weights() -> None:
    model = tiny.orchestrator(NAMES, 40)
    torch.testing.assert_close(model(IDS[1:, :3], MASK[1:, :3]), model(IDS, MASK)[1:], atol=1e-6, rtol=0)


def test_a_new_orchestrator_keeps_the_encoder_and_starts_at_uniform_weights(encoder: Path) -> None:
    model = new_orchestrator(str(encoder), objectives=list(NAMES), pooling="mean", max_tokens=16).eval()
    torch.testing.assert_close(model(IDS, MASK).exp(), torch.full((2, 3), 1 / 3))
    original = BertModel.from_pretrained(encoder).state_dict()
    assert original.keys() == model.encoder.state_dict().keys()
    assert all(torch.equal(original[key], value) for key, value in model.encoder.state_dict().items())


def test_a_saved_orchestrator_gives_the_same_weights(tmp_path: Path) -> None:
    model = tiny.orchestrator(NAMES, 40)
    model.save_pretrained(tmp_path)
    loaded = OrchestratorModel.from_pretrained(tmp_path).eval()
    assert loaded.config.objectives == list(NAMES)
    assert loaded.config.max_tokens == tiny.MAX_TOKENS
    torch.testing.assert_close(loaded(IDS, MASK), model(IDS, MASK), atol=0, rtol=0)


def test_only_safetensors_are_written(tmp_path: Path) -> None:
    tiny.orchestrator(NAMES, 40).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A tiny random encoder of two layers on disk."""
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(tmp_path / "deep")
    return tmp_path / "deep"


def layered(encoder: Path, layers: tuple[int, ...]) -> OrchestratorModel:
    """An orchestrator that reads several layers, head at random."""
    model = new_orchestrator(
        str(encoder), objectives=list(NAMES), pooling="mean", max_tokens=16, layers=layers
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.nn.init.normal_(model.head.weight, std=0.1)
    model.eval()
    return model


def test_the_head_reads_the_layers_of_the_configuration_joined(deep: Path, tmp_path: Path) -> None:
    model = layered(deep, (0, -1))
    assert model.head.in_features == 32
    states = BertModel.from_pretrained(deep).eval()(IDS, MASK, output_hidden_states=True).hidden_states
    for row, tokens in enumerate(MASK.sum(dim=1)):
        expected = torch.cat([states[layer][row, :tokens].mean(dim=0) for layer in (0, 2)])
        torch.testing.assert_close(model.pooled(IDS, MASK)[row], expected)
    model.save_pretrained(tmp_path / "saved")
    loaded = OrchestratorModel.from_pretrained(tmp_path / "saved").eval()
    assert loaded.config.layers == [0, -1]
    torch.testing.assert_close(loaded(IDS, MASK), model(IDS, MASK), atol=0, rtol=0)


def test_the_last_layer_is_what_is_read_where_nothing_is_said(deep: Path) -> None:
    default, last = (
        new_orchestrator(str(deep), objectives=list(NAMES), pooling="mean", max_tokens=16),
        layered(deep, (-1,)),
    )
    torch.testing.assert_close(default.eval().pooled(IDS, MASK), last.pooled(IDS, MASK), atol=0, rtol=0)
    assert default.head.in_features == 16


def test_an_orchestrator_of_several_layers_is_the_same_in_onnx(deep: Path, tmp_path: Path) -> None:
    model = layered(deep, (-2, -1))
    export_onnx(model, tmp_path / "model.onnx", max_tokens=16)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    feeds = {"input_ids": IDS.numpy(), "attention_mask": MASK.numpy()}
    weights, confidence = session.run(None, feeds)
    with torch.inference_mode():
        expected_weights, expected_confidence = model.serve(IDS, MASK)
    assert (expected_weights[0] - expected_weights[1]).abs().max() > 1e-3
    np.testing.assert_allclose(weights, expected_weights.numpy(), atol=1e-4)
    np.testing.assert_allclose(confidence, expected_confidence.numpy(), atol=1e-4)


def test_a_layer_that_the_encoder_does_not_have_names_the_allowed_ones(deep: Path) -> None:
    with pytest.raises(ValueError, match="layer 3 does not exist; the encoder has 0 to 2, or -1 to -3"):
        layered(deep, (3,))
