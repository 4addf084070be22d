"""Scoring with the rewards of a run, whatever their kind.

In:  reward artifacts, each described by its `reward.json`; prompts and responses.
Out: raw rewards, (N,) per objective, (N, K) together. Training prompts of a trained reward may be scored by
     the model that never saw their fold. Classifiers are shared by the ranks of the run, or by Ray's workers;
     nothing depends on how many there are.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from preforch_models.manifest import read_manifest
from preforch_models.objectives import Record

from preforch_training.data.splits import fold_of
from preforch_training.distributed.config import Scorer
from preforch_training.distributed.shares import shared
from preforch_training.records import PreferencePair, Prompt
from preforch_training.reward.config import Reward
from preforch_training.reward.kinds import KINDS
from preforch_training.reward.ray_scoring import score_by_ray
from preforch_training.run import Run
from preforch_training.tuning.resident import release, staying

REWARD_FILE = "reward.json"
LARGEST = 1e100
"""Of a reward, either way."""


class RewardInfo(Record):
    """`reward.json`: what an objective is rewarded by. `folds`: number of fold models, 0 for a given
    reward.

    `in_sample`: trained without fold models, as `[reward] folds = "off"` asks for, so that training prompts
    are scored by a model that was trained on them.
    """

    reward: Reward
    folds: int
    in_sample: bool = False


def read_reward(folder: Path) -> RewardInfo:
    """What a reward artifact is. Raises ArtifactError where it is not finished."""
    read_manifest(folder, kind="reward")
    return RewardInfo.model_validate_json((folder / REWARD_FILE).read_text(encoding="utf-8"))


def fold_folder(folder: Path, fold: int | None) -> Path:
    """Folder of the full model, or of the one that never saw a fold."""
    return folder if fold is None else folder / "folds" / str(fold)


def score(
    reward: Reward,
    folder: Path,
    cache: Path,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    fold: int | None = None,
    scoring: Scorer = Scorer(),
) -> np.ndarray:
    """Raw rewards of one objective, (N,). Raises ValueError on a reward that is missing or not finite.

    A model that was loaded is gone when this returns: rewards are scored one after the other, each in the
    memory of the one before.
    """
    kind = KINDS[reward.kind]
    of_rows = partial(kind.score, reward, fold_folder(folder, fold), cache)
    if not kind.by_rows:
        rewards_N = of_rows(prompts, responses)
    else:
        # Where models stay, each process has its own, and a step's few responses are no work for a cluster.
        if scoring.engine == "ray" and not staying():
            rewards_N = score_by_ray(of_rows, prompts, responses, workers=scoring.workers)
        else:
            lengths = [len(p.text) + len(r) for p, r in zip(prompts, responses, strict=True)]
            rewards_N = shared(of_rows, prompts, responses, lengths=lengths)
        release()
    return check_rewards(rewards_N, prompts, responses, source=reward.kind)


def check_rewards(
    values: np.ndarray, prompts: Sequence[Prompt], responses: Sequence[str], *, source: str
) -> np.ndarray:
    """(N,) float64. Raises ValueError naming the first response whose reward is missing or not finite."""
    rewards_N = np.asarray(values, dtype=np.float64)
    if rewards_N.shape != (len(responses),):
        raise ValueError(
            f"{source} reward: expected {len(responses)} numbers, got an array of shape {rewards_N.shape}"
        )
    # What is larger has no square in double precision's range, and so no deviation.
    wrong = np.flatnonzero(~(np.abs(rewards_N) < LARGEST))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(
            f"{source} reward of response {i} is {rewards_N[i]}, it must be finite and less than "
            f"{LARGEST:.0e}; prompt {prompts[i].text[:80]!r}, response {responses[i][:80]!r}"
        )
    return rewards_N


def pair_margins(
    reward: Reward,
    folder: Path,
    cache: Path,
    prompts: Mapping[str, Prompt],
    pairs: Sequence[PreferencePair],
    *,
    fold: int | None = None,
    scoring: Scorer = Scorer(),
) -> np.ndarray:
    """Raw r(y+) - r(y-) of one objective, (N,), by the model of a fold or the full one; `prompts` by id."""
    if not pairs:
        return np.empty(0)
    asked = [prompts[pair.prompt_id] for pair in pairs]
    sides = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    rewards_M = score(reward, folder, cache, [*asked, *asked], sides, fold=fold, scoring=scoring)
    return np.asarray(rewards_M[: len(pairs)] - rewards_M[len(pairs) :])


class RunRewards:
    """The finished rewards of a run, objectives in its order."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.infos = {name: read_reward(run.reward(name)) for name in run.names}

    @property
    def folds(self) -> int:
        """Fold models of the trained rewards, the same number for all; 0 where every reward is given."""
        return max(info.folds for info in self.infos.values())

    @property
    def load_models(self) -> bool:
        """Whether scoring loads a model each time."""
        return any(KINDS[info.reward.kind].by_rows for info in self.infos.values())

    @property
    def in_sample(self) -> list[str]:
        """Objectives whose scores of training prompts are in-sample, because the config asks for it."""
        return [name for name, info in self.infos.items() if info.in_sample]

    def own_folds(self, prompts: Sequence[Prompt]) -> list[int | None]:
        """The fold whose models never saw a training prompt; None, the full models, for other prompts."""
        return [
            fold_of(prompt.messages, self.folds) if self.folds and prompt.split == "train" else None
            for prompt in prompts
        ]

    def raw(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        folds: Sequence[int | None] | None = None,
    ) -> np.ndarray:
        """Raw rewards, (N, K). `folds[i]`: fold of the models to use, None for the full ones (the
        default)."""
        return np.stack([self.of_objective(name, prompts, responses, folds) for name in self.infos], axis=1)

    def of_objective(
        self,
        name: str,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        folds: Sequence[int | None] | None = None,
    ) -> np.ndarray:
        """Raw rewards of one objective, (N,)."""
        info = self.infos[name]
        used = [None] * len(prompts) if folds is None or not info.folds else folds
        rewards_N = np.zeros(len(prompts))
        for fold in sorted(set(used), key=lambda f: -1 if f is None else f):
            rows = [i for i, f in enumerate(used) if f == fold]
            rewards_N[rows] = score(
                info.reward,
                self._run.reward(name),
                self._run.encoder_cache,
                [prompts[i] for i in rows],
                [responses[i] for i in rows],
                fold=fold,
                scoring=self._run.scoring,
            )
        return rewards_N

    def margins(
        self, name: str, prompts: Mapping[str, Prompt], pairs: Sequence[PreferencePair]
    ) -> np.ndarray:
        """Raw margins of pairs by the full model of an objective, (N,); `prompts` by id."""
        return pair_margins(
            self.infos[name].reward,
            self._run.reward(name),
            self._run.encoder_cache,
            prompts,
            pairs,
            scoring=self._run.scoring,
        )
