"""What both ways of fitting f share, and the one that leaves the encoder as it is (`fine_tuning` is the
other).

In:  texts with labels. Out: `Fitted`.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from preforch_models.orchestrator_model import OrchestratorModel, new_orchestrator
from transformers import AutoTokenizer

from preforch_training.embeddings.stored import scratch_folder, store_vectors
from preforch_training.embeddings.vectors import EncoderSettings, TextVectors, encoder_path
from preforch_training.orchestrator.config import Config
from preforch_training.orchestrator.linear_head import Labelled, fit_head
from preforch_training.records import first_places, in_batches
from preforch_training.tuning.hf_trainer import METRICS_FILE

VectorsOf = Callable[[Sequence[str]], np.ndarray]
"""Texts to the pooled vectors that the head reads, (N, D)."""
TEXTS_AT_ONCE = 20_000
"""Whose vectors are in memory."""


@dataclass(frozen=True)
class Targets:
    """Rows to fit: texts, and labels as the loss wants them (`targets.labels_for`), (N, K)."""

    texts: Sequence[str]
    labels_NK: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """`numbers`: what belongs in the manifest, with `validation_loss`, and `scale` (learned s) for `bt_gate`.

    `vectors`: what the head reads of texts.
    """

    model: OrchestratorModel
    tokenizer: Any
    numbers: dict[str, float]
    vectors: VectorsOf


def encoder_settings(config: Config) -> EncoderSettings:
    """What determines the vectors that the head reads."""
    return EncoderSettings(
        name=config.encoder,
        pooling=config.pooling,
        max_tokens=config.max_tokens,
        layers=config.layers,
    )


def fit_frozen(
    config: Config,
    names: Sequence[str],
    train: Targets,
    validation: Targets,
    *,
    folder: Path,
    work: Path,
    cache: Path,
) -> Fitted:
    """Fit the head alone, on vectors that are computed once and stay on the disk."""
    vectors = TextVectors(encoder_settings(config), cache)
    texts = Distinct(chain(train.texts, validation.texts))
    for _ in vectors.store(texts.of(chain(train.texts, validation.texts))):
        pass
    with scratch_folder(work) as scratch:
        found = texts.of(chain(train.texts, validation.texts))
        head = fit_head(
            store_vectors(scratch / "vectors", in_parts(vectors, found)),
            Labelled(texts.which_N[: len(train.texts)], train.labels_NK),
            Labelled(texts.which_N[len(train.texts) :], validation.labels_NK),
            loss=config.loss,
            tau=config.training_tau,
            entropy_prior=config.entropy_prior,
            penalties=config.penalties,
        )
    model, tokenizer = new_model(config, names)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(head.weight_KD))
        model.head.bias.copy_(torch.from_numpy(head.bias_K))
    lines = [
        {
            "step": i,
            "penalty": point.penalty,
            "train_loss": point.train_loss,
            "eval_loss": point.held_out_loss,
        }
        for i, point in enumerate(head.grid)
    ]
    (folder / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    numbers = {"validation_loss": head.held_out_loss, "penalty": head.penalty}
    return Fitted(model.eval(), tokenizer, numbers | learned_scale(config, head.log_scale), vectors)


class Distinct:
    """Which texts are the same: each one's number among the distinct ones, `which_N`, in order of first
    appearance."""

    def __init__(self, texts: Iterable[str]) -> None:
        keys_N = np.fromiter(map(hash, texts), dtype=np.int64)
        first_U, self.which_N = first_places(keys_N)
        self._first_N = np.zeros(len(keys_N), dtype=bool)
        self._first_N[first_U] = True

    def of(self, texts: Iterable[str]) -> Iterator[str]:
        """The distinct ones of the same texts."""
        return compress(texts, self._first_N)


def in_parts(vectors: VectorsOf, texts: Iterable[str]) -> Iterator[np.ndarray]:
    """Vectors of texts, (N, D), some texts at a time."""
    return (vectors(some) for some in in_batches(texts, TEXTS_AT_ONCE))


def learned_scale(config: Config, log_scale: float) -> dict[str, float]:
    return {"scale": math.exp(log_scale)} if config.loss == "bt_gate" else {}


def new_model(config: Config, names: Sequence[str]) -> tuple[OrchestratorModel, Any]:
    path = encoder_path(config.encoder)
    tokenizer = AutoTokenizer.from_pretrained(path, revision=config.revision)
    model = new_orchestrator(
        path,
        objectives=list(names),
        pooling=config.pooling,
        layers=config.layers,
        max_tokens=config.max_tokens,
        revision=config.revision,
    )
    return model, tokenizer
