"""How good the orchestrator is, beside everything simpler and beside an oracle (METHOD 4).

Targets of held-out prompts are computed from their overall pairs like those of training.
Predictors: f; `uniform`; `best constant` and `tf-idf + linear` fitted on the training targets; `shuffled f`,
f of another prompt of the split; where the truth is known `true weights`, w° itself, and `oracle`.

The oracle sets the ceiling: it knows w°(x) and the family, and predicts the loss's minimiser given them,
estimated on the training prompts by ridge regression on (family, w°): of w* for the forward loss, of log w*
(then softmax) for the reverse one and for `regress`. Ceiling = its explained KL on held-out prompts; share =
explained KL of f / ceiling.

What the two losses without target weights are measured on: `regress` on w* = softmax(values / tau), `bt_gate`
on w* = softmax(margins / tau), both with the forward divergence KL(w* || f), which neither of them minimises.
Their `best constant` is that of their own loss, softmax(mean value / tau) and the most likely one (no entropy
prior).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.preprocessing import OneHotEncoder

from preforch_training.orchestrator.config import Loss
from preforch_training.orchestrator.evaluation import explained_kl, losses, share_of_ceiling
from preforch_training.orchestrator.targets import (
    best_constant,
    softmax,
)
from preforch_training.report.facts import Facts
from preforch_training.report.records import Ceiling, GroupWeights, OrchestratorReport, Predictor
from preforch_training.statistics.bootstrap import Bootstrap, mean_interval
from preforch_training.statistics.metrics import preference_hits, shuffle_within
from preforch_training.statistics.predictors import (
    CONSTANT,
    LINEAR,
    ORACLE,
    SHUFFLED,
    TRUE,
    UNIFORM,
    F,
    word_features,
)

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)


def report_orchestrator(
    facts: Facts, f_PK: np.ndarray, *, loss: Loss, bootstrap: Bootstrap
) -> OrchestratorReport:
    """f(x) beside every other predictor; `f_PK` are its weights for all prompts."""
    predictions = predict_all(facts, f_PK, loss=loss, seed=bootstrap.seed)
    splits = [split for split in facts.held_out if facts.pairs_of(split).size]
    return OrchestratorReport(
        predictors=tuple(
            _predictor(facts, name, weights_PK, split, loss=loss, bootstrap=bootstrap)
            for split in splits
            for name, weights_PK in predictions.items()
        ),
        ceilings=tuple(
            _ceiling(facts, predictions, split, loss=loss, bootstrap=bootstrap) for split in splits
        )
        if ORACLE in predictions
        else (),
        weights=tuple(group_weights(facts, f_PK)),
    )


def predict_all(facts: Facts, f_PK: np.ndarray, *, loss: Loss, seed: int) -> dict[str, np.ndarray]:
    """Weights of every predictor for all prompts, (P, K) each."""
    train_N = facts.pairs_of("train")
    texts = [prompt.text for prompt in facts.prompts]
    trained_P = np.isin(np.arange(len(texts)), facts.prompt_N[train_N])
    predictions = {
        F: f_PK,
        UNIFORM: np.full_like(f_PK, 1 / f_PK.shape[1]),
        CONSTANT: np.broadcast_to(constant_weights(facts, train_N, loss=loss), f_PK.shape),
        SHUFFLED: shuffle_within(f_PK, facts.split_P, seed=seed),
        LINEAR: fit_weights(word_features(texts, trained_P), facts, loss=loss),
    }
    if facts.true_PK is not None and facts.family_P is not None:
        family_PF = OneHotEncoder(sparse_output=False).fit_transform(facts.family_P[:, None])
        predictions[ORACLE] = fit_weights(np.hstack([family_PF, facts.true_PK]), facts, loss=loss)
        predictions[TRUE] = facts.true_PK
    return predictions


def constant_weights(facts: Facts, rows_N: np.ndarray, *, loss: Loss) -> np.ndarray:
    """The best constant of the loss on some pairs, (K,)."""
    if loss == "bt_gate":
        return best_constant(facts.margin_NK[rows_N], loss=loss)
    # The geometric mean of softmax(values / tau), normalised, is softmax(mean value / tau).
    return best_constant(facts.target_NK[rows_N], loss="reverse" if loss == "regress" else loss)


def fit_weights(features_PV: Any, facts: Facts, *, loss: Loss) -> np.ndarray:
    """Ridge regression from features (dense or sparse) to what minimises the loss, for all prompts, (P, K).

    Fitted on training pairs; the penalty is the one with the least loss on validation pairs.
    """
    train_N, held_out_N = facts.pairs_of("train"), facts.pairs_of("validation")
    target_NK = np.maximum(facts.target_NK, 1e-12)
    wanted_NK = np.log(target_NK) if _has_log_targets(loss) else target_NK
    best_PK, least = np.empty(0), np.inf
    for penalty in PENALTIES:
        model = Ridge(alpha=penalty).fit(features_PV[facts.prompt_N[train_N]], wanted_NK[train_N])
        weights_PK = _to_simplex(model.predict(features_PV), loss=loss)
        found = losses(weights_PK[facts.prompt_N[held_out_N]], target_NK[held_out_N], loss=loss).mean()
        if found < least:
            best_PK, least = weights_PK, found
    return best_PK


def _has_log_targets(loss: Loss) -> bool:
    """Whether the loss is least at softmax(E log w*), and not at E w*."""
    return loss in ("reverse", "regress")


def _to_simplex(predicted_PK: np.ndarray, *, loss: Loss) -> np.ndarray:
    """Weights from predicted log weights or predicted weights."""
    if _has_log_targets(loss):
        return softmax(predicted_PK, 1.0)
    positive_PK = np.maximum(predicted_PK, 1e-3)
    return np.asarray(positive_PK / positive_PK.sum(axis=1, keepdims=True))


def group_weights(facts: Facts, f_PK: np.ndarray) -> list[GroupWeights]:
    """f(x) by split, and by family over all test splits where families are known."""
    groups = [("split", split, facts.split_P == split) for split in ("train", *facts.held_out)]
    if facts.family_P is not None:
        tested_P = np.isin(facts.split_P, facts.tests or facts.held_out)
        groups += [
            ("family", str(name), tested_P & (facts.family_P == name)) for name in np.unique(facts.family_P)
        ]
    return [
        GroupWeights.model_validate(
            {
                "group": name,
                "kind": kind,
                "prompts": int(rows_P.sum()),
                "mean": _named(facts, f_PK[rows_P].mean(axis=0)),
                "spread": _named(facts, f_PK[rows_P].std(axis=0)),
                "true_mean": None
                if facts.true_PK is None
                else _named(facts, facts.true_PK[rows_P].mean(axis=0)),
            }
        )
        for kind, name, rows_P in groups
        if rows_P.any()
    ]


def _predictor(
    facts: Facts, name: str, weights_PK: np.ndarray, split: str, *, loss: Loss, bootstrap: Bootstrap
) -> Predictor:
    rows_N = facts.pairs_of(split)
    prompt_N = facts.prompt_N[rows_N]
    weights_NK = weights_PK[prompt_N]
    hits_N = preference_hits(weights_NK, facts.margin_NK[rows_N])
    true_kl = true_explained = true_top = None
    if facts.true_PK is not None:
        asked_P = np.flatnonzero(facts.split_P == split)
        guess_PK, true_PK = weights_PK[asked_P], facts.true_PK[asked_P]
        top_P = (guess_PK.argmax(axis=1) == true_PK.argmax(axis=1)).astype(float)
        true_kl = mean_interval(losses(guess_PK, true_PK, loss=loss), asked_P, bootstrap=bootstrap)
        true_explained = explained_kl(guess_PK, true_PK, asked_P, loss=loss, bootstrap=bootstrap)
        true_top = mean_interval(top_P, asked_P, bootstrap=bootstrap)
    return Predictor(
        name=name,
        split=split,
        explained_kl=explained_kl(
            weights_NK, facts.target_NK[rows_N], prompt_N, loss=loss, bootstrap=bootstrap
        ),
        preference_accuracy=mean_interval(hits_N, prompt_N, bootstrap=bootstrap),
        true_kl=true_kl,
        true_explained_kl=true_explained,
        true_top=true_top,
    )


def _ceiling(
    facts: Facts, predictions: Mapping[str, np.ndarray], split: str, *, loss: Loss, bootstrap: Bootstrap
) -> Ceiling:
    rows_N = facts.pairs_of(split)
    prompt_N, target_NK = facts.prompt_N[rows_N], facts.target_NK[rows_N]
    f_NK, oracle_NK = predictions[F][prompt_N], predictions[ORACLE][prompt_N]
    return Ceiling(
        split=split,
        oracle=explained_kl(oracle_NK, target_NK, prompt_N, loss=loss, bootstrap=bootstrap),
        share=share_of_ceiling(f_NK, oracle_NK, target_NK, prompt_N, loss=loss, bootstrap=bootstrap),
    )


def _named(facts: Facts, values_K: np.ndarray) -> dict[str, float]:
    return dict(zip(facts.names, values_K.tolist(), strict=True))
