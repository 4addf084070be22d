"""Confidence (METHOD 4): how familiar a prompt is to a trained orchestrator.

In:  a trained orchestrator, the pooled vectors of its training prompts, of held-out ones and of foreign
     texts, the fallback weights.
Out: the orchestrator with its `Familiarity` fitted, and how familiar held-out prompts and foreign texts are
     to it.

Its formula is in `preforch_models.orchestrator_model.Familiarity`. Mean and covariance come from the training
prompts (Ledoit and Wolf's shrinkage). What a distance means comes from held-out prompts, because the vectors
of training prompts are nearer to their own mean, and from foreign texts: the spread of held-out prompts alone
says nothing of where another kind begins. Where all of them are made from a few templates, a new phrasing may
still be nearer to what is foreign (docs/results.md).
"""

from typing import Literal

import numpy as np
import torch
from preforch_models.orchestrator_model import Familiarity, OrchestratorModel
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

MOST_PROMPTS = 20_000
"""Of training, and held-out ones: more are drawn from evenly, and hardly change a covariance."""
FLOOR = 1e-6
"""Of variances, as a share of their mean."""
METHOD = "odds against foreign texts"
"""Part of a run's recipe: an orchestrator whose confidence was fitted in another way is made anew."""
FOREIGN_TEXTS = 60
"""Of each kind, a few seconds of encoding on one core."""


def add_confidence(
    model: OrchestratorModel,
    train_ND: np.ndarray,
    held_out_MD: np.ndarray,
    foreign_FD: np.ndarray,
    *,
    fallback_K: np.ndarray,
    confidence: Literal["report", "shrink"],
) -> dict[str, float]:
    """Fit the model's familiarity. Each prompt's vector comes once. Returns numbers to be kept."""
    if len(train_ND) < 2 or not len(held_out_MD):
        raise ValueError(
            f"confidence {confidence!r} needs 2 training prompts and 1 for validation, got {len(train_ND)} "
            "and "
            f'{len(held_out_MD)}; there is "off"'
        )
    fitted = fit_familiarity(train_ND, held_out_MD, foreign_FD, fallback_K=fallback_K)
    model.familiarity = fitted
    model.config.confidence = confidence
    held_out_M, foreign_F = (familiarity_of(fitted, vectors) for vectors in (held_out_MD, foreign_FD))
    return {
        "familiarity_median": float(np.median(held_out_M)),
        "unfamiliar_share": float((held_out_M < 0.5).mean()),
        "familiarity_median_foreign": float(np.median(foreign_F)),
    }


def fit_familiarity(
    train_ND: np.ndarray, held_out_MD: np.ndarray, foreign_FD: np.ndarray, *, fallback_K: np.ndarray
) -> Familiarity:
    """Mean and precision of training directions; location and slope by logistic regression on the logarithm
    of the distance, held-out prompts against foreign texts, both sides of equal weight."""
    gauss = LedoitWolf().fit(_directions(train_ND))
    fitted = Familiarity(train_ND.shape[1], len(fallback_K))
    fitted.mean_D.copy_(torch.from_numpy(gauss.location_))
    # A root of the precision makes the distance a length; a quadratic form in float32 may come out negative.
    fitted.factor_DD.copy_(torch.from_numpy(np.linalg.cholesky(_precision(gauss.covariance_))))
    fitted.fallback_K.copy_(torch.from_numpy(fallback_K))
    log_N = (
        fitted.log_distance(torch.from_numpy(np.concatenate([held_out_MD, foreign_FD])).float())
        .double()
        .numpy()
    )
    # In units of its spread, because the regression shrinks its slope, which keeps it finite where the sides
    # are apart.
    spread = max(float(log_N.std()), 1e-6)
    is_foreign_N = np.repeat([False, True], [len(held_out_MD), len(foreign_FD)])
    found = LogisticRegression(class_weight="balanced").fit(log_N[:, None] / spread, is_foreign_N)
    slope = float(found.coef_[0, 0]) / spread
    # Foreign texts that are no farther away than held-out prompts: nothing is known, which is 0.5 for all.
    if slope > 0:
        fitted.slope.fill_(slope)
        fitted.log_location.fill_(-float(found.intercept_[0]) / slope)
    return fitted


def _precision(covariance_DD: np.ndarray) -> np.ndarray:
    """Also of prompts that are alike or few, which have no spread in most directions."""
    width = len(covariance_DD)
    floor = FLOOR * max(float(np.trace(covariance_DD)) / width, FLOOR)
    return np.asarray(np.linalg.inv(covariance_DD + floor * np.eye(width)))


def _directions(vectors_ND: np.ndarray) -> np.ndarray:
    doubles_ND = vectors_ND.astype(np.float64)
    return np.asarray(doubles_ND / np.linalg.norm(doubles_ND, axis=1, keepdims=True).clip(1e-12))


def familiarity_of(familiarity: Familiarity, vectors_ND: np.ndarray) -> np.ndarray:
    """Familiarity of pooled vectors, (N,)."""
    with torch.inference_mode():
        return np.asarray(familiarity(torch.from_numpy(vectors_ND).float()).double().numpy())


def signals_of(model: OrchestratorModel, vectors_ND: np.ndarray) -> dict[str, np.ndarray]:
    """What tells prompts unlike the training data from others, each (N,) and high for familiar ones:
    certainty, and confidence where familiarity is known, which it is then."""
    with torch.inference_mode():
        log_NK = model.log_weights(torch.from_numpy(vectors_ND).float())
        certainty = {"certainty": model.certainty(log_NK).double().numpy()}
    if model.familiarity is None:
        return certainty
    return certainty | {"confidence": familiarity_of(model.familiarity, vectors_ND)}
