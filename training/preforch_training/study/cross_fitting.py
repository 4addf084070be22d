"""The course of a study: folds, cross-fitted rewards and vectors; every trial is run once and kept.

In:  material and config. Out: `Course`, which gives the trials of a choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from preforch_models.manifest import digest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from preforch_training.embeddings.vectors import EncoderSettings, TextVectors
from preforch_training.reward.pair_head import pair_head_fit
from preforch_training.reward.scoring import PairHeadReward
from preforch_training.study.choices import Changed, Choice, Trial, run_trial
from preforch_training.study.data import Material, category_folds, prompt_folds
from preforch_training.study.reward_folds import FitReward, crossfit, fitted_on_share
from preforch_training.study.stage import Features

if TYPE_CHECKING:
    from preforch_training.config import RunConfig
    from preforch_training.run import Run
    from preforch_training.study.stage import Config

WORDS = 300
"""Dimensions that TF-IDF vectors are reduced to (truncated SVD), so that the same head fits them."""


@dataclass(frozen=True)
class Course:
    """The trials of one study. Seed s has folds and reward models of its own."""

    run: "Run"
    material: Material
    folds: tuple[np.ndarray, ...]
    rewards: tuple[np.ndarray, ...]
    features: dict[str, np.ndarray]
    fit: FitReward
    work: Path

    @property
    def seeds(self) -> range:
        return range(len(self.folds))

    def trials(
        self,
        choice: Choice,
        *,
        changed: Changed | None = None,
        label: str = "",
        words: bool = False,
        share: float = 1.0,
        seeds: int = 0,
    ) -> list[Trial]:
        """One trial for each seed (or the first `seeds`), fitted on a share of the training prompts.

        `label` names what `changed` does.
        """
        return [
            self._kept(
                ["trial", choice.model_dump(), label, words, share, seed],
                partial(
                    run_trial,
                    self.material,
                    self.rewards[seed],
                    self.words if words else self.features[choice.features],
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
            made = fitted_on_share(self.material, self.fit, self.folds[0], share=share, seed=seed)
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

    def words(self, train_P: np.ndarray) -> np.ndarray:
        """TF-IDF of the prompts, vocabulary and axes from the training side, (P, 300)."""
        texts = self.material.texts
        known = [text for text, trained in zip(texts, train_P, strict=True) if trained]
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit(known)
        words_PV = vectorizer.transform(texts)
        axes = TruncatedSVD(min(WORDS, words_PV.shape[1] - 1), random_state=0).fit(words_PV[train_P])
        return np.asarray(axes.transform(words_PV))


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".partial")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    part.replace(path)


def open_course(
    run: "Run",
    config: "RunConfig",
    settings: "Config",
    material: Material,
    work: Path,
    *,
    by_category: bool = False,
) -> Course:
    """Draw folds, encode texts, cross-fit the rewards of every seed; each seed's rewards are kept."""
    seeds = range(1 if by_category else settings.seeds)
    draw = category_folds if by_category else prompt_folds
    folds = tuple(draw(material, settings.folds, seed=run.seed_for("study", "folds", seed)) for seed in seeds)
    fit = reward_fit(run, config, material)
    rewards = []
    for seed, fold_P in zip(seeds, folds, strict=True):
        path = work / f"rewards-{'category' if by_category else 'prompt'}-{seed}.npz"
        if not path.exists():
            made = crossfit(material, fit, fold_P, seed=run.seed_for("study", "rewards", seed))
            save_arrays(path, {"rewards": made})
        with np.load(path) as stored:
            rewards.append(stored["rewards"])
    features = prompt_features(run, config, material, () if by_category else settings.features)
    return Course(run, material, folds, tuple(rewards), features, fit, work)


def reward_fit(run: "Run", config: "RunConfig", material: Material) -> FitReward:
    """What `crossfit` fits: the run's reward heads on cached vectors. Raises ValueError for other kinds of reward."""
    fitters = {}
    for name, reward in config.reward.items():
        if not isinstance(reward, PairHeadReward):
            raise ValueError(
                f"[reward.{name}] is {reward.kind!r}; a study cross-fits 'pair_head' rewards only"
            )
        fitters[name] = pair_head_fit(
            reward, run.encoder_cache, [material.texts[p] for p in material.prompt_U], material.responses
        )
    return lambda name, pairs_M2, seed: fitters[name](pairs_M2, seed)


def prompt_features(
    run: "Run", config: "RunConfig", material: Material, others: Sequence[Features] = ()
) -> dict[str, np.ndarray]:
    """Vectors of the prompts, (P, D), by what they are called: those of the run's orchestrator first."""
    encoder = config.orchestrator
    ways = [Features(pooling=encoder.pooling, layers=encoder.layers), *others]
    return {
        str(way): TextVectors(
            EncoderSettings(encoder.encoder, way.pooling, encoder.max_tokens, way.layers), run.encoder_cache
        )(material.texts)
        for way in ways
    }
