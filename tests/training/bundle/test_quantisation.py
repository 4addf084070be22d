"""A real encoder in 8 bits: a quarter of the size, nearly the same answers, and the head left as it is."""

import math
from pathlib import Path

import onnx
import pytest
import torch
from preforch_models.orchestrator_model import Familiarity, OrchestratorModel, new_orchestrator
from preforch_training.bundle.onnx_export import export_onnx, serve_onnx
from preforch_training.bundle.quantisation import Measured, measure, quantise
from preforch_training.embeddings.vectors import MINILM, encoder_path
from preforch_training.orchestrator.prediction import vectors_of
from transformers import AutoTokenizer

MAX_TOKENS = 64
TOPICS = ("bread", "a bicycle", "tax law", "my sister", "volcanoes", "Python", "grief", "chess")
ASKS = ("How do I begin with {}?", "Tell me a joke about {}.", "I am afraid of {}, what should I do?", "{}")
TEXTS = [ask.format(topic) for ask in ASKS for topic in TOPICS]


def fit_head(model: OrchestratorModel, vectors_ND: torch.Tensor) -> None:
    """0.8 on the objective of the kind of question, 0.1 on the others; no ties, which noise would turn."""
    kinds_N = torch.arange(len(TEXTS)) // len(TOPICS)
    targets_NK = torch.cat([torch.eye(3) * 0.7 + 0.1, torch.tensor([[0.5, 0.3, 0.2]])])[kinds_N]
    optimizer = torch.optim.Adam(model.head.parameters(), lr=0.05, weight_decay=1e-4)
    for _ in range(200):
        optimizer.zero_grad()
        loss = -(targets_NK * model.log_weights(vectors_ND)).sum(dim=1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """MiniLM with a head that has learned the kind of question, and familiarity, as ONNX and in 8 bits."""
    folder = tmp_path_factory.mktemp("minilm")
    encoder = encoder_path(MINILM)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = new_orchestrator(encoder, objectives=["a", "b", "c"], pooling="mean", max_tokens=MAX_TOKENS)
        familiarity = Familiarity(384, 3)
    model.eval()
    vectors_ND = torch.from_numpy(vectors_of(model, AutoTokenizer.from_pretrained(encoder), TEXTS))
    fit_head(model, vectors_ND)
    familiarity.mean_D.copy_(torch.nn.functional.normalize(vectors_ND, dim=-1).mean(0))
    familiarity.factor_DD.copy_(torch.eye(384))
    familiarity.log_location.fill_(math.log(0.9))
    familiarity.slope.fill_(4.0)
    model.familiarity, model.config.confidence = familiarity, "report"
    exact, int8 = folder / "exact.onnx", folder / "int8.onnx"
    export_onnx(model, exact, max_tokens=MAX_TOKENS)
    quantise(exact, int8)
    return exact, int8


@pytest.fixture(scope="module")
def measured(graphs: tuple[Path, Path]) -> Measured:
    tokenizer = AutoTokenizer.from_pretrained(encoder_path(MINILM))
    return measure(*graphs, tokenizer, TEXTS[:4], TEXTS, max_tokens=MAX_TOKENS)


def test_int8_and_fp32_agree_on_minilm(graphs: tuple[Path, Path], measured: Measured) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_path(MINILM))
    exact = serve_onnx(graphs[0], tokenizer, TEXTS, max_tokens=MAX_TOKENS)
    # Weights that differ from text to text, or agreement means nothing.
    assert exact.weights_NK[:, 0].std() > 0.1
    assert exact.confidence_N.std() > 0.02
    assert measured.info.prompts == len(TEXTS)
    assert measured.info.mean_difference < 0.02
    assert measured.info.largest_difference < 0.15
    assert measured.info.mean_confidence_difference < 0.05
    assert measured.info.changed_largest < 0.05
    assert measured.info.size_ratio < 0.3


def test_what_is_behind_the_encoder_is_left_as_it_is(graphs: tuple[Path, Path]) -> None:
    graph = onnx.load(graphs[1]).graph
    operators = [node.op_type for node in graph.node]
    names = {initializer.name for initializer in graph.initializer}
    assert operators.count("MatMulInteger") == 6 * 6
    assert {"model.head.weight", "model.familiarity.factor_DD"} <= names


def test_batches_change_no_exact_answer(graphs: tuple[Path, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_path(MINILM))
    alone, together = (
        serve_onnx(graphs[0], tokenizer, TEXTS, max_tokens=MAX_TOKENS, tokens=tokens) for tokens in (1, 256)
    )
    assert together.weights_NK == pytest.approx(alone.weights_NK, abs=1e-5)
    assert together.confidence_N == pytest.approx(alone.confidence_N, abs=1e-5)
