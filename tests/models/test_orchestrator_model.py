"""The orchestrator's definition: log weights on the simplex, uniform at the start, the same after a round trip."""

from pathlib import Path

import pytest
import tiny
import torch
from preforch_models.orchestrator_model import OrchestratorModel, new_orchestrator
from transformers import BertConfig, BertModel

NAMES = ("helpful", "harmless", "humor")
IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
MASK = (IDS != 0).long()


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A tiny random encoder on disk."""
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
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
