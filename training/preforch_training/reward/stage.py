"""Stage `reward`: one reward model per objective, with the k fold models that give out-of-fold scores (paper,
Eq. 2).

In:  the pairs of one objective.
Out: `reward/<objective>/`: `reward.json`, which says what the reward is; where it is trained also a Hugging
     Face checkpoint and `folds/0..k-1`.

Departure from the paper, unless `folds = "off"`: fold i's model never sees prompts of fold i, because a
reward model overfits its own pairs and in-sample scores make the orchestrator's targets too sure. [ours]
"""

from pathlib import Path

from preforch_training.data.splits import fold_of
from preforch_training.records import by_id, write_record
from preforch_training.reward.config import Config
from preforch_training.reward.fit_task import FitTask
from preforch_training.reward.kinds import KINDS, Fit
from preforch_training.reward.scoring import REWARD_FILE, RewardInfo, fold_folder, pair_margins
from preforch_training.run import Outcome, Run, origin_of
from preforch_training.statistics.metrics import pair_hits


def build(run: Run, config: Config) -> None:
    """Make `reward/<objective>/` for every objective."""
    for name in run.names:
        reward = config.objectives[name]
        fit = KINDS[reward.kind].fit
        folds = 0 if fit is None or config.folds == "off" else config.folds
        info = RewardInfo(reward=reward, folds=folds, in_sample=fit is not None and not folds)

        def make(
            folder: Path, work: Path, name: str = name, fit: Fit | None = fit, info: RewardInfo = info
        ) -> Outcome:
            write_record(folder / REWARD_FILE, info)
            return fit_folds(run, name, info, fit, folder, work) if fit else Outcome()

        # `in_sample` follows from the folds; without it, what was made before it existed is up to date.
        recipe = info.model_dump(mode="json", exclude={"in_sample"}) | {
            "origin": origin_of(reward.base_model)
        }
        recipe |= {"seed": run.seed} if fit else {}
        inputs = {"data": run.data} if fit else {}
        run.make(run.reward(name), kind="reward", config=recipe, inputs=inputs, build=make)


def fit_folds(run: Run, name: str, info: RewardInfo, fit: Fit, folder: Path, work: Path) -> Outcome:
    """Fit one objective's fold models and its full model, and judge each on the validation pairs."""
    prompts, cache = by_id(run.prompts()), run.encoder_cache
    train, validation = (run.pairs(name, split) for split in ("train", "validation"))
    prepare = KINDS[info.reward.kind].prepare
    if prepare is not None:
        # In one go: every text of the run, so that each is encoded once.
        sides = [response for pair in run.pairs() for response in (pair.chosen, pair.rejected)]
        prepare(info.reward, cache, [*(prompt.text for prompt in prompts.values()), *sides])
    if not train or not validation:
        raise ValueError(
            f"objective {name!r} has {len(train)} training and {len(validation)} validation pairs; "
            f"a reward of kind {info.reward.kind!r} is fitted to the one and judged on the other"
        )
    fold_by_id = {p.id: fold_of(p.messages, info.folds) for p in prompts.values()} if info.folds else {}
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
        margin_M = pair_margins(info.reward, folder, cache, prompts, validation, fold=fold)
        accuracies[label] = float(pair_hits(margin_M).mean())
    return Outcome(
        counts={"train_pairs": len(train), "validation_pairs": len(validation)},
        metrics={"validation_pair_accuracy": accuracies},
    )
