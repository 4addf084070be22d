"""Confidence (METHOD 4): how familiar a prompt is to a trained orchestrator.

In:  a trained orchestrator, the pooled vectors of its training prompts and of held-out ones, the fallback
     weights.
Out: the orchestrator with its `Familiarity` fitted, and how familiar held-out prompts are to it.

Its formula is in `preforch_models.orchestrator_model.Familiarity`. Mean and covariance come from the training
prompts (Ledoit and Wolf's shrinkage); where "unfamiliar" begins comes from held-out prompts, because the
vectors of training prompts are nearer to their own mean.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from preforch_models.orchestrator_model import Familiarity, OrchestratorModel
from preforch_models.orchestrator_options import Confidence
from sklearn.covariance import LedoitWolf

MOST_PROMPTS = 20_000
"""Of training, and held-out ones: more are drawn from evenly, and hardly change a covariance."""
TYPICAL = 0.95
"""Familiarity of the median held-out prompt."""
UNFAMILIAR = 0.99
"""Quantile of the held-out distances at which familiarity is 0.5; weights shrink beyond it."""

Vectors = Callable[[Sequence[str]], np.ndarray]
"""Texts to the pooled vectors that the head reads, (N, D)."""


def add_confidence(
    model: OrchestratorModel,
    train_ND: np.ndarray,
    held_out_MD: np.ndarray,
    *,
    fallback_K: np.ndarray,
    confidence: Confidence,
) -> dict[str, float]:
    """Fit the model's familiarity, unless it is off. Each prompt's vector comes once.
    Returns numbers to be kept."""
    if confidence == "off":
        return {}
    if len(train_ND) < 2 or not len(held_out_MD):
        raise ValueError(
            f"confidence {confidence!r} needs 2 training prompts and 1 for validation, got {len(train_ND)} "
            "and "
            f'{len(held_out_MD)}; there is "off"'
        )
    familiarity = fit_familiarity(train_ND, held_out_MD, fallback_K=fallback_K)
    model.familiarity = familiarity
    model.config.confidence = confidence
    held_out_M = familiarity_of(model, held_out_MD)
    return {
        "familiarity_median": float(np.median(held_out_M)),
        "unfamiliar_share": float((held_out_M < 0.5).mean()),
    }


def fit_familiarity(train_ND: np.ndarray, held_out_MD: np.ndarray, *, fallback_K: np.ndarray) -> Familiarity:
    """Mean and precision of training directions; location and slope from the distances of held-out ones."""
    gauss = LedoitWolf().fit(_directions(train_ND))
    # A root of the precision makes the distance a length; a quadratic form in float32 may come out negative.
    factor_DD = np.linalg.cholesky(gauss.precision_)
    distance_M = np.linalg.norm((_directions(held_out_MD) - gauss.location_) @ factor_DD, axis=1)
    median, location = np.quantile(distance_M, [0.5, UNFAMILIAR])
    # Held-out prompts that are all alike leave no spread to take the slope from.
    spread = max(location - median, 1e-3 * location, 1e-6)
    fitted = Familiarity(train_ND.shape[1], len(fallback_K))
    values = {
        "mean_D": gauss.location_,
        "factor_DD": factor_DD,
        "location": location,
        "slope": math.log(TYPICAL / (1 - TYPICAL)) / spread,
        "fallback_K": fallback_K,
    }
    fitted.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()})
    return fitted


def _directions(vectors_ND: np.ndarray) -> np.ndarray:
    doubles_ND = vectors_ND.astype(np.float64)
    return np.asarray(doubles_ND / np.linalg.norm(doubles_ND, axis=1, keepdims=True).clip(1e-12))


def familiarity_of(model: OrchestratorModel, vectors_ND: np.ndarray) -> np.ndarray:
    """Familiarity of pooled vectors, (N,); 1 for a model that does not know it."""
    if model.familiarity is None:
        return np.ones(len(vectors_ND))
    with torch.inference_mode():
        return np.asarray(model.familiarity(torch.from_numpy(vectors_ND).float()).double().numpy())


def signals_of(model: OrchestratorModel, vectors_ND: np.ndarray) -> dict[str, np.ndarray]:
    """What tells prompts unlike the training data from others, each (N,) and high for familiar ones."""
    with torch.inference_mode():
        pooled_ND = torch.from_numpy(vectors_ND).float()
        certainty_N = model.certainty(model.log_weights(pooled_ND)).double().numpy()
        confidence_N = model.serve_pooled(pooled_ND)[1].double().numpy()
    familiarity_N = familiarity_of(model, vectors_ND)
    return {"certainty": certainty_N, "familiarity": familiarity_N, "confidence": confidence_N}
