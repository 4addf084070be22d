"""Heads for tests whose every row has a vector of its own."""

from typing import Any

import numpy as np
from preforch_training.orchestrator.linear_head import Head, Labelled, fit_head


def fit_rows(
    features_ND: np.ndarray, labels_NK: np.ndarray, held: tuple[np.ndarray, np.ndarray], **options: Any
) -> Head:
    """`fit_head` on training and held-out rows."""
    count = len(features_ND)
    return fit_head(
        np.concatenate([features_ND, held[0]]),
        Labelled(np.arange(len(labels_NK)), labels_NK),
        Labelled(count + np.arange(len(held[1])), held[1]),
        **options,
    )
