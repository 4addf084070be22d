"""Cross-fitting: folds, rewards and vectors of a study; every trial is run once and kept.

In:  study data and config. Out: `CrossFitting`, which gives the trials of a choice.

Nested cross-fitting of the reward models. For every outer fold i each response gets a reward from models that
have not seen its prompt:
* responses of fold i by the models fitted without fold i: what a deployed reward model says of new prompts;
* responses of another fold j by the models fitted without i and j: out-of-fold scores, from which an
  orchestrator for fold i is fitted without ever touching fold i.
A model without {i, j} serves both orders, so F folds need F (F + 1) / 2 models per objective.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Literal

import numpy as np
from preforch_models.files import writing_file
from preforch_models.manifest import digest
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from tqdm import tqdm

from preforch_training.embeddings.vectors import TextVectors
from preforch_training.reward.kinds import KINDS
from preforch_training.run import Run
from preforch_training.statistics.predictors import word_features
from preforch_training.study.choices import Changed, Choice, Trial, run_trial
from preforch_training.study.config import Config, Features
from preforch_training.study.data import StudyData, category_folds, prompt_folds
from preforch_training.study.subject import StudySubject

REDUCED = 300
"""Dimensions that TF-IDF vectors are reduced to (truncated SVD), as dense as those of an encoder."""
Words = Literal["raw", "reduced"]
"""TF-IDF vectors in place of the encoder's, as they are or reduced."""


FitReward = Callable[[str, np.ndarray, int], Callable[[np.ndarray], np.ndarray]]
"""(objective, pairs (M, 2), seed) -> a scorer of response rows (R,) -> (R,)."""


def crossfit(
    data: StudyData, fit: FitReward, fold_P: np.ndarray, *, seed: int, judged: int | None = None
) -> np.ndarray:
    """Raw rewards, (F, U, K); only those for one outer fold where it is `judged` alone,
    the others are NaN."""
    folds = int(fold_P.max()) + 1
    fold_U = fold_P[data.prompt_U]
    rewards_FUK = np.full((folds, len(data.responses), len(data.names)), np.nan)
    left_out = list(combinations_with_replacement(range(folds), 2))
    if judged is not None:
        left_out = list(product(range(folds), [judged]))
    for number, (i, j) in enumerate(tqdm(left_out, desc="crossfit rewards", unit="fold pair")):
        for k, name in enumerate(data.names):
            pairs_M2 = data.pairs[name]
            scorer = fit(name, pairs_M2[~np.isin(fold_U[pairs_M2[:, 0]], (i, j))], seed + number)
            for outer, scored in {(i, j), (j, i)}:
                rows = np.flatnonzero(fold_U == scored)
                rewards_FUK[outer, rows, k] = scorer(rows)
    needed_FUK = rewards_FUK if judged is None else rewards_FUK[judged]
    if not np.isfinite(needed_FUK).all():
        raise ValueError("study: a reward is not finite")
    return rewards_FUK


def fitted_on_share(
    data: StudyData, fit: FitReward, fold_P: np.ndarray, *, share: float, seed: int
) -> np.ndarray:
    """Each response's reward by models fitted on a share of the prompts outside its fold, (U, K).

    Larger shares hold the prompts of smaller ones.
    """
    drawn_P = np.random.default_rng(seed).random(len(data.prompts)) < share
    fold_U, drawn_U = fold_P[data.prompt_U], drawn_P[data.prompt_U]
    rewards_UK = np.full((len(data.responses), len(data.names)), np.nan)
    for fold in tqdm(range(int(fold_P.max()) + 1), desc=f"rewards on {share:g} of the prompts", unit="fold"):
        for k, name in enumerate(data.names):
            first_M = data.pairs[name][:, 0]
            scorer = fit(name, data.pairs[name][drawn_U[first_M] & (fold_U[first_M] != fold)], seed + fold)
            rows = np.flatnonzero(fold_U == fold)
            rewards_UK[rows, k] = scorer(rows)
    return rewards_UK


def held_out_rewards(rewards_FUK: np.ndarray, fold_U: np.ndarray) -> np.ndarray:
    """Each response's reward by the models that left out exactly its fold, (U, K)."""
    return np.asarray(rewards_FUK[fold_U, np.arange(len(fold_U))])


@dataclass(frozen=True)
class CrossFitting:
    """The trials of one study. Seed s has folds and reward models of its own."""

    run: Run
    data: StudyData
    folds: tuple[np.ndarray, ...]
    rewards: tuple[np.ndarray, ...]
    features: dict[str, np.ndarray]
    fit: FitReward
    work: Path

    @property
    def seeds(self) -> range:
        """Numbers of the repetitions, from 0."""
        return range(len(self.folds))

    def trials(
        self,
        choice: Choice,
        *,
        changed: Changed | None = None,
        label: str = "",
        words: Words | None = None,
        share: float = 1.0,
        seeds: int = 0,
    ) -> list[Trial]:
        """One trial for each seed (or the first `seeds`), fitted on a share of the training prompts.

        `label` names what `changed` does; `words`: fit TF-IDF vectors.
        """
        features = {"raw": self.words, "reduced": self.reduced_words}
        return [
            self._kept(
                ["trial", choice.model_dump(), label, words, share, seed],
                partial(
                    run_trial,
                    self.data,
                    self.rewards[seed],
                    self.features[choice.features] if words is None else features[words],
                    self.folds[seed],
                    choice,
                    changed=changed,
                    train_share=share,
                    train_draw=seed,
                ),
            )
            for seed in self.seeds[: seeds or None]
        ]

    def smaller_rewards(self, share: float) -> np.ndarray:
        """Held-out rewards of the first seed, (U, K), by models fitted on a share of the training prompts."""
        path = self.work / f"rewards-share-{share:g}.npz"
        if not path.exists():
            seed = self.run.seed_for("study", "rewards", 0)
            made = fitted_on_share(self.data, self.fit, self.folds[0], share=share, seed=seed)
            save_arrays(path, {"rewards": made})
        with np.load(path) as stored:
            return np.asarray(stored["rewards"])

    def _kept(self, key: list[object], make: Callable[[], Trial]) -> Trial:
        """Made once: what a killed study has finished is read back."""
        path = self.work / f"{digest(key)[:24]}.npz"
        if path.exists():
            with np.load(path) as stored:
                return Trial(**{field.name: stored[field.name] for field in fields(Trial)})
        trial = make()
        save_arrays(path, {field.name: getattr(trial, field.name) for field in fields(Trial)})
        return trial

    def words(self, train_P: np.ndarray) -> csr_matrix:
        """TF-IDF of the prompts, vocabulary and frequencies from the training side, (P, V)."""
        return csr_matrix(word_features(self.data.texts, train_P, min_df=2))

    def reduced_words(self, train_P: np.ndarray) -> np.ndarray:
        """The same on its largest axes of the training side, (P, 300)."""
        words_PV = self.words(train_P)
        axes = TruncatedSVD(min(REDUCED, words_PV.shape[1] - 1), random_state=0).fit(words_PV[train_P])
        return np.asarray(axes.transform(words_PV))


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An `.npz` file, whole or not at all."""
    with writing_file(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def open_cross_fitting(
    run: Run,
    config: Config,
    subject: StudySubject,
    data: StudyData,
    work: Path,
    *,
    by_category: bool = False,
) -> CrossFitting:
    """Draw folds, encode texts, cross-fit the rewards of every seed; each seed's rewards are kept."""
    seeds = range(1 if by_category else config.seeds)
    draw = category_folds if by_category else prompt_folds
    folds = tuple(draw(data, config.folds, seed=run.seed_for("study", "folds", seed)) for seed in seeds)
    fit = reward_fit(run, subject, data)
    rewards = []
    for seed, fold_P in zip(seeds, folds, strict=True):
        path = work / f"rewards-{'category' if by_category else 'prompt'}-{seed}.npz"
        if not path.exists():
            made = crossfit(data, fit, fold_P, seed=run.seed_for("study", "rewards", seed))
            save_arrays(path, {"rewards": made})
        with np.load(path) as stored:
            rewards.append(stored["rewards"])
    features = prompt_features(run, subject, data, () if by_category else config.features)
    return CrossFitting(run, data, folds, tuple(rewards), features, fit, work)


def reward_fit(run: Run, subject: StudySubject, data: StudyData) -> FitReward:
    """What `crossfit` fits: the run's rewards in memory.
    Raises ValueError for a reward that has no such fit."""
    fitters = {}
    for name, reward in subject.rewards.items():
        cross_fit = KINDS[reward.kind].cross_fit
        if cross_fit is None:
            raise ValueError(f"[reward.{name}] is {reward.kind!r}, which a study cannot cross-fit")
        prompts = [data.texts[p] for p in data.prompt_U]
        fitters[name] = cross_fit(reward, run.encoder_cache, prompts, data.responses)
    return lambda name, pairs_M2, seed: fitters[name](pairs_M2, seed)


def prompt_features(
    run: Run, subject: StudySubject, data: StudyData, others: Sequence[Features] = ()
) -> dict[str, np.ndarray]:
    """Vectors of the prompts, (P, D), by what they are called: those of the run's orchestrator first."""
    return {
        str(way): TextVectors(subject.encoder(way), run.encoder_cache)(data.texts)
        for way in (subject.own_features, *others)
    }
