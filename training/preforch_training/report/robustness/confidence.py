"""How well the confidence tells prompts unlike the training data from held-out ones (METHOD 4).

In:  a trained orchestrator, held-out prompts. Out: `ConfidenceReport`: AUROC of every signal for every kind
     of `unlike_prompts`, and how much of f(x) shrinkage keeps.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from preforch_models.orchestrator_model import OrchestratorModel
from transformers import AutoTokenizer

from preforch_training.orchestrator.confidence.familiarity import signals_of
from preforch_training.orchestrator.confidence.foreign_texts import vocabulary_words
from preforch_training.orchestrator.prediction import vectors_of
from preforch_training.report.facts import Facts
from preforch_training.report.records import ConfidenceReport, HeldOutPrompts, UnlikePrompts
from preforch_training.report.robustness.unlike_prompts import separation, unlike_prompts
from preforch_training.statistics.bootstrap import Bootstrap

Item = TypeVar("Item")

TEST_PROMPTS = 300
UNLIKE_PROMPTS = 60
"""Of each kind. These two keep the part within seconds on one core."""
LONG_CHARACTERS = 8
"""Characters of a very long prompt for each token that is read: about twice what is read, in English."""


def report_confidence(folder: Path, facts: Facts, *, bootstrap: Bootstrap) -> ConfidenceReport:
    """Held-out test prompts, or validation prompts where there are none,
    beside prompts unlike the training data."""
    model = OrchestratorModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    splits = facts.tests or facts.held_out
    held_out = [prompt for prompt in facts.prompts if prompt.split in splits]
    held_out = _drawn(held_out, TEST_PROMPTS, seed=bootstrap.seed)
    tested = [prompt.text for prompt in held_out]
    unlike = unlike_prompts(
        tested,
        words=vocabulary_words(tokenizer, seed=bootstrap.seed),
        long_characters=LONG_CHARACTERS * model.config.max_tokens,
        seed=bootstrap.seed,
        count=UNLIKE_PROMPTS,
    )
    inside = signals_of(model, vectors_of(model, tokenizer, tested))
    outside = {kind: signals_of(model, vectors_of(model, tokenizer, texts)) for kind, texts in unlike.items()}
    auroc = {
        name: separation(
            inside[name],
            {kind: signals[name] for kind, signals in outside.items()},
            bootstrap=bootstrap,
        )
        for name in inside
    }
    split_N = np.array([prompt.split for prompt in held_out])
    return ConfidenceReport(
        mode=model.config.confidence,
        held_out=tuple(_held_out(model, split, _where(inside, split_N == split)) for split in splits),
        unlike=tuple(
            UnlikePrompts(
                kind=kind,
                prompts=len(unlike[kind]),
                median=_median(signals),
                kept=_mean(kept_share(model, signals)),
                **{name: auroc[name][kind] for name in inside},
            )
            for kind, signals in outside.items()
        ),
    )


def kept_share(model: OrchestratorModel, signals: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Share of f(x) in the weights that are served, (N,); None for a model that does not shrink."""
    if model.familiarity is None or model.config.confidence != "shrink":
        return None
    return np.asarray(model.familiarity.kept(torch.from_numpy(signals["confidence"])).numpy())


def _held_out(model: OrchestratorModel, split: str, signals: Mapping[str, np.ndarray]) -> HeldOutPrompts:
    kept_N = kept_share(model, signals)
    return HeldOutPrompts(
        split=split,
        prompts=len(signals["certainty"]),
        median=_median(signals),
        kept=_mean(kept_N),
        shrunk=None if kept_N is None else float((kept_N < 1).mean()),
    )


def _where(signals: Mapping[str, np.ndarray], is_here_N: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values_N[is_here_N] for name, values_N in signals.items()}


def _median(signals: Mapping[str, np.ndarray]) -> float | None:
    """Of the confidence, where there is any."""
    return float(np.median(signals["confidence"])) if len(signals.get("confidence", ())) else None


def _drawn(items: list[Item], count: int, *, seed: int) -> list[Item]:
    """All, or `count` of them drawn at random."""
    return items if len(items) <= count else random.Random(seed).sample(items, count)


def _mean(values_N: np.ndarray | None) -> float | None:
    return None if values_N is None else float(values_N.mean())
