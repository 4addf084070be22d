"""From trials to table rows: the trials of all seeds together, intervals over prompts.

In:  one `Trial` per seed, folds drawn anew for each. Out: `ChoiceResult`, `Predictors`, `CategoryWeights`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from preforch_training.orchestrator.evaluation import explained_kl
from preforch_training.statistics.bootstrap import Bootstrap, Interval, interval_of, mean_interval
from preforch_training.statistics.metrics import (
    best_likelihood,
    preference_hits,
    shuffle_within,
    weighted_auroc,
)
from preforch_training.statistics.predictors import (
    CATEGORY_ORACLE,
    CONSTANT,
    LINEAR,
    REDUCED_LINEAR,
    SHUFFLED,
    UNIFORM,
    F,
)
from preforch_training.study.choices import Choice, Trial
from preforch_training.study.data import StudyData
from preforch_training.study.records import CategoryWeights, ChoiceResult, PredictorResult, Predictors


@dataclass(frozen=True)
class TrialJudge:
    """The data and the bootstrap that all rows of a study are judged by."""

    data: StudyData
    bootstrap: Bootstrap

    def gain(self, weights: Sequence[np.ndarray], trials: Sequence[Trial]) -> tuple[Interval, Interval]:
        """Accuracy of (P, K) weights, one array per trial, and its paired difference to the best constant."""
        prompt_N = self.data.prompt_N
        hits_SN = np.array(
            [hits_of(weights_PK[prompt_N], t) for weights_PK, t in zip(weights, trials, strict=True)]
        )
        base_SN = np.array([hits_of(t.constant_PK[prompt_N], t) for t in trials])
        return self.mean(hits_SN), self.mean(hits_SN - base_SN)

    def paired(self, trials: Sequence[Trial], others: Sequence[Trial]) -> Interval:
        """Accuracy of the first trials' f minus that of the others',
        each by the margins of its own calibration."""
        prompt_N = self.data.prompt_N
        first_SN, second_SN = (
            np.array([hits_of(t.f_PK[prompt_N], t) for t in group]) for group in (trials, others)
        )
        return self.mean(first_SN - second_SN)

    def mean(self, values_SN: np.ndarray) -> Interval:
        """Mean over pairs (and seeds) with its interval over prompts."""
        values_N = values_SN.mean(axis=0)
        return mean_interval(values_N, self.data.prompt_N, bootstrap=self.bootstrap)

    def explained(
        self, weights: Sequence[np.ndarray], trials: Sequence[Trial], choice: Choice
    ) -> Interval | None:
        """Explained KL over the pairs of all trials; none for a choice without targets."""
        if choice.loss == "bt_gate":
            return None
        prompt_N = self.data.prompt_N
        return explained_kl(
            np.concatenate([weights_PK[prompt_N] for weights_PK in weights]),
            np.concatenate([trial.target_NK for trial in trials]),
            np.tile(prompt_N, len(trials)),
            loss=choice.loss,
            bootstrap=self.bootstrap,
        )

    def result(self, choice: Choice, trials: Sequence[Trial]) -> ChoiceResult:
        """One row of the table of alternatives."""
        weights = [trial.f_PK for trial in trials]
        accuracy, gain = self.gain(weights, trials)
        prompt_N = self.data.prompt_N
        gains_M = np.concatenate([(t.f_PK[prompt_N] * t.margin_NK).sum(axis=1) for t in trials])
        likelihood, scale = best_likelihood(gains_M)
        f_MK = np.concatenate(weights)
        return ChoiceResult(
            choice=choice,
            accuracy=accuracy,
            gain=gain,
            explained_kl=self.explained(weights, trials, choice),
            log_likelihood=likelihood,
            scale=scale,
            entropy=float(-(f_MK * np.log(np.maximum(f_MK, 1e-12))).sum(axis=1).mean()),
            separation=self.separation(np.mean(weights, axis=0)),
        )

    def predictors(
        self,
        choice: Choice,
        trials: Sequence[Trial],
        *,
        words: Sequence[Trial],
        reduced_words: Sequence[Trial],
    ) -> Predictors:
        """The orchestrator beside everything simpler; `words`: the same choice on TF-IDF features."""
        whole = np.zeros(len(self.data.prompts))
        ways: Mapping[str, list[np.ndarray]] = {
            F: [t.f_PK for t in trials],
            UNIFORM: [np.full_like(t.f_PK, 1 / t.f_PK.shape[1]) for t in trials],
            CONSTANT: [t.constant_PK for t in trials],
            SHUFFLED: [
                shuffle_within(t.f_PK, whole, seed=self.bootstrap.seed + s) for s, t in enumerate(trials)
            ],
            LINEAR: [t.f_PK for t in words],
            REDUCED_LINEAR: [t.f_PK for t in reduced_words],
            CATEGORY_ORACLE: [t.oracle_PK for t in trials],
        }
        rows = []
        for name, weights in ways.items():
            if name == CATEGORY_ORACLE and len(set(self.data.category_P)) < 2:
                continue
            accuracy, gain = self.gain(weights, trials)
            # The constants were chosen for accuracy; explained KL has its own best constant, which is its
            # zero.
            explained = (
                None if name in (CONSTANT, CATEGORY_ORACLE) else self.explained(weights, trials, choice)
            )
            rows.append(PredictorResult(name=name, accuracy=accuracy, gain=gain, explained_kl=explained))
        return Predictors(choice=choice, rows=tuple(rows))

    def categories(self, trials: Sequence[Trial]) -> list[CategoryWeights]:
        """Weights by category, averaged over seeds."""
        f_PK = np.mean([trial.f_PK for trial in trials], axis=0)
        category_P = self.data.category_P
        if len(set(category_P)) < 2:
            return []
        return [
            CategoryWeights(
                category=category,
                prompts=int((category_P == category).sum()),
                mean=self._named(f_PK[category_P == category].mean(axis=0)),
                spread=self._named(f_PK[category_P == category].std(axis=0)),
            )
            for category in sorted(set(category_P))
        ]

    def separation(self, weights_PK: np.ndarray) -> dict[str, Interval] | None:
        """AUROC of each weight between two categories:
        the one named after the objective, or the last, is positive."""
        categories = sorted(set(self.data.category_P))
        if len(categories) != 2:
            return None
        found = {}
        for k, name in enumerate(self.data.names):
            named = [category for category in categories if category.startswith(name)]
            positive_P = self.data.category_P == (named[0] if len(named) == 1 else categories[-1])
            found[name] = self.auroc(weights_PK[:, k], positive_P)
        return found

    def auroc(self, score_P: np.ndarray, positive_P: np.ndarray) -> Interval:
        """Chance that a positive prompt scores higher than a negative one, ties counting half."""

        def statistic(counts_BP: np.ndarray) -> np.ndarray:
            return weighted_auroc(score_P, positive_P, counts_BP)

        return interval_of(statistic, groups=len(score_P), bootstrap=self.bootstrap)

    def _named(self, values_K: np.ndarray) -> dict[str, float]:
        return dict(zip(self.data.names, values_K.tolist(), strict=True))


def hits_of(weights_NK: np.ndarray, trial: Trial) -> np.ndarray:
    """1 where the weights order a held-out pair as labelled."""
    return preference_hits(weights_NK, trial.margin_NK)
