"""Stage `reward`: one reward model per objective, with the k fold models that give out-of-fold scores (paper,
Eq. 2).

In:  the pairs of one objective, or the overall ones. Every reward is judged on the validation pairs, also one
     that is given.
Out: `reward/<objective>/`: `reward.json`, which says what the reward is; where it is trained also a Hugging
     Face checkpoint and `folds/0..k-1`.

Departure from the paper, unless `folds = "off"`: fold i's model never sees prompts of fold i, because a
reward model overfits its own pairs and in-sample scores make the orchestrator's targets too sure. [ours]
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from preforch_training.data.splits import fold_of
from preforch_training.paths import naming
from preforch_training.records import PreferencePair, Prompt, by_id, write_record
from preforch_training.reward.config import Config
from preforch_training.reward.fit_task import FitTask
from preforch_training.reward.kinds import KINDS, Fit
from preforch_training.reward.scoring import REWARD_FILE, RewardInfo, fold_folder, pair_margins
from preforch_training.run import Outcome, Run, origin_of
from preforch_training.statistics.bootstrap import Bootstrap, Interval, mean_interval
from preforch_training.statistics.metrics import pair_hits

FEWEST_PROMPTS = 2
"""A head is fitted to the pairs of some prompts and its penalty chosen by those of others."""
COIN = 0.55
"""Validation accuracy up to which a reward is hardly better than a coin."""
PARTED = 0.2
"""Training accuracy above that of validation from which a reward knows its pairs by heart."""
JUDGED_PAIRS = 2000
"""Of a split, drawn by the seed."""


def build(run: Run, config: Config) -> None:
    """Make `reward/<objective>/` for every objective, and `reward/overall/` where there is such a reward."""
    for name in (*run.names, *config.overall_alone):
        reward = config.rewards[name]
        fit = KINDS[reward.kind].fit
        folds = 0 if fit is None or config.folds == "off" else config.folds
        info = RewardInfo(reward=reward, folds=folds, in_sample=fit is not None and not folds)

        def make(
            folder: Path, work: Path, name: str = name, fit: Fit | None = fit, info: RewardInfo = info
        ) -> Outcome:
            write_record(folder / REWARD_FILE, info)
            return (
                fit_folds(run, name, info, fit, folder, work) if fit else judge_given(run, name, info, folder)
            )

        # `in_sample` follows from the folds; without it, what was made before it existed is up to date.
        recipe = info.model_dump(mode="json", exclude={"in_sample"}) | {
            "origin": origin_of(reward.base_model)
        }
        recipe |= {"seed": run.seed} if fit else {}
        with naming(f"reward.{name}.{reward.names_model}", reward.base_model):
            run.make(run.reward(name), kind="reward", config=recipe, inputs={"data": run.data}, build=make)


def judge_given(run: Run, name: str, info: RewardInfo, folder: Path) -> Outcome:
    """How a reward that needs no training orders the pairs of its objective, where there are some."""
    judge = Judge(run, name, info, folder, by_id(run.prompts()))
    held_out = run.pairs(name, "validation")
    if not held_out:
        print(f"reward/{name}: no validation pairs to judge it by", file=sys.stderr, flush=True)
        return Outcome()
    return Outcome(
        counts={"validation_pairs": len(held_out)}, metrics=judge.speak_up(held_out, training_pairs=())
    )


class Judge:
    """How one objective's reward orders pairs."""

    def __init__(
        self, run: Run, name: str, info: RewardInfo, folder: Path, prompts: Mapping[str, Prompt]
    ) -> None:
        self._run, self._name, self._info, self._folder, self._prompts = run, name, info, folder, prompts

    def accuracy(self, pairs: Sequence[PreferencePair], *, fold: int | None = None) -> Interval:
        """Pair accuracy of a fold's model, or the full one, with its interval over prompts."""
        seed = self._run.seed_for("reward", self._name, "judged")
        if len(pairs) > JUDGED_PAIRS:
            chosen = np.random.default_rng(seed).choice(len(pairs), JUDGED_PAIRS, replace=False)
            pairs = [pairs[i] for i in np.sort(chosen)]
        cache = self._run.encoder_cache
        margin_M = pair_margins(self._info.reward, self._folder, cache, self._prompts, pairs, fold=fold)
        groups_M = np.array([pair.prompt_id for pair in pairs])
        return mean_interval(pair_hits(margin_M), groups_M, bootstrap=Bootstrap(seed=seed, replicates=1000))

    def speak_up(
        self, held_out: Sequence[PreferencePair], *, training_pairs: Sequence[PreferencePair]
    ) -> dict[str, object]:
        """Print what the full model is worth and what is wrong with it; numbers for the manifest."""
        found = self.accuracy(held_out)
        metrics: dict[str, object] = {"validation": found.model_dump()}
        lines = [f"orders {found} of {min(len(held_out), JUDGED_PAIRS)} validation pairs"]
        if found.value <= COIN:
            lines.append("warning: hardly better than a coin; weights that follow it follow noise")
        if training_pairs:
            known = self.accuracy(training_pairs)
            metrics["training"] = known.model_dump()
            lines[0] += f", {known.value:.3f} of its training pairs"
            if known.value - found.value > PARTED:
                lines.append("warning: it knows its training pairs by heart; fewer epochs, or more pairs")
        for line in lines:
            print(f"reward/{self._name}: {line}", file=sys.stderr, flush=True)
        return metrics


def fit_folds(run: Run, name: str, info: RewardInfo, fit: Fit, folder: Path, work: Path) -> Outcome:
    """Fit one objective's fold models and its full model, and judge each on the validation pairs."""
    prompts, cache = by_id(run.prompts()), run.encoder_cache
    train, validation = (run.pairs(name, split) for split in ("train", "validation"))
    fold_by_id = {p.id: fold_of(p.messages, info.folds) for p in prompts.values()} if info.folds else {}
    check_enough(name, info, train, validation, fold_by_id)
    prepare = KINDS[info.reward.kind].prepare
    if prepare is not None:
        # In one go: every text of the run, so that each is encoded once.
        sides = (response for pair in run.each_pair() for response in (pair.chosen, pair.rejected))
        prepare(info.reward, cache, chain((prompt.text for prompt in prompts.values()), sides))
    judge = Judge(run, name, info, folder, prompts)
    accuracies = {}
    for fold in [*range(info.folds), None]:
        label = "full" if fold is None else f"fold {fold}"
        task = FitTask(
            target=fold_folder(folder, fold),
            work=work / label.replace(" ", "-"),
            cache=cache,
            prompts=prompts,
            pairs=[pair for pair in train if fold is None or fold_by_id[pair.prompt_id] != fold],
            seed=run.seed_for("reward", name, label),
            label=f"{name} {label}",
            tracking=run.tracking("reward", name, label.replace(" ", "-")),
        )
        fit(info.reward, task)
        accuracies[label] = judge.accuracy(validation, fold=fold).value
    return Outcome(
        counts={"train_pairs": len(train), "validation_pairs": len(validation)},
        metrics={
            "validation_pair_accuracy": accuracies,
            **judge.speak_up(validation, training_pairs=train),
        },
    )


def check_enough(
    name: str,
    info: RewardInfo,
    train: Sequence[PreferencePair],
    validation: Sequence[PreferencePair],
    fold_by_id: Mapping[str, int],
) -> None:
    """Raise ValueError with the numbers where there are too few pairs to fit some model or to judge it."""
    kind = info.reward.kind
    if not train or not validation:
        raise ValueError(
            f"objective {name!r} has {len(train)} training and {len(validation)} validation pairs; "
            f"a reward of kind {kind!r} is fitted to the one and judged on the other"
        )
    asked = {pair.prompt_id for pair in train}
    for fold in [*range(info.folds), None]:
        left = {prompt_id for prompt_id in asked if fold is None or fold_by_id[prompt_id] != fold}
        if len(left) < FEWEST_PROMPTS:
            without = "" if fold is None else f" without fold {fold} of {info.folds}"
            raise ValueError(
                f"objective {name!r} has {len(train)} training pairs of {len(asked)} prompts, and{without} "
                f"of {len(left)}; a reward of kind {kind!r} is fitted to pairs of at least {FEWEST_PROMPTS} "
                "prompts: more pairs are needed, or [reward] folds = 'off'"
            )
