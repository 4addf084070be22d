"""Stage `reward`: one reward model per objective, with the k fold models that give out-of-fold scores (paper, Eq. 2).

In:  the pairs of one objective.
Out: `reward/<objective>/`: a Hugging Face checkpoint and `folds/0..k-1`, or `reward.json` that describes a given one.

Departure from the paper: fold i's model never sees prompts of fold i, because a reward model overfits its own pairs and
in-sample scores make the orchestrator's targets too sure. [ours]
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from preforch_training.data.splits import fold_of
from preforch_training.embeddings.vectors import TextVectors
from preforch_training.records import PreferencePair, Prompt, by_id, read_records
from preforch_training.reward.bradley_terry import train_classifier
from preforch_training.reward.pair_head import fit_pair_head
from preforch_training.reward.scoring import (
    TRAINED,
    BradleyTerryReward,
    PairHeadReward,
    encoder_settings,
    fold_folder,
    model_name,
    pair_margins,
)
from preforch_training.run import Outcome, Run, origin_of

if TYPE_CHECKING:
    from preforch_training.config import RunConfig


def build(run: Run, config: "RunConfig") -> None:
    """Make `reward/<objective>/` for every objective."""
    for name in config.names:
        settings = config.reward[name]

        def make(folder: Path, work: Path, name: str = name) -> Outcome:
            return make_reward(folder, work, run, config, name)

        recipe = {"reward": settings.model_dump(mode="json"), "seed": run.seed, "folds": config.scores.folds}
        recipe |= {"origin": origin_of(model_name(settings))}
        inputs = {"data": run.data} if settings.kind in TRAINED else {}
        run.make(run.reward(name), kind="reward", config=recipe, inputs=inputs, build=make)


def make_reward(folder: Path, work: Path, run: Run, config: "RunConfig", name: str) -> Outcome:
    """Train one objective's models, or write down a given one."""
    settings = config.reward[name]
    if not isinstance(settings, PairHeadReward | BradleyTerryReward):
        (folder / "reward.json").write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return Outcome()
    prompts = by_id(read_records(run.data / "prompts.jsonl", Prompt))
    every = read_records(run.data / "pairs.jsonl", PreferencePair)
    train = [pair for pair in every if pair.objective == name and pair.split == "train"]
    validation = [pair for pair in every if pair.objective == name and pair.split == "validation"]
    vectors = None
    if isinstance(settings, PairHeadReward):
        vectors = TextVectors(encoder_settings(settings), run.encoder_cache)
        # In one go: every text of the run, so that each is encoded once.
        vectors(
            [
                *(p.text for p in prompts.values()),
                *(r for pair in every for r in (pair.chosen, pair.rejected)),
            ]
        )
    folds = {prompt.id: fold_of(prompt.messages, config.scores.folds) for prompt in prompts.values()}
    accuracies = {}
    for fold in [*range(config.scores.folds), None]:
        seen = [pair for pair in train if fold is None or folds[pair.prompt_id] != fold]
        target, label = fold_folder(folder, fold), "full" if fold is None else f"fold {fold}"
        seed = run.seed_for("reward", name, label)
        if isinstance(settings, PairHeadReward):
            assert vectors is not None
            train_pair_head(target, settings, vectors, prompts, seen, seed=seed, label=f"{name} {label}")
        else:
            train_classifier(target, work / label.replace(" ", "-"), settings, prompts, seen, seed=seed)
        accuracies[label] = pair_accuracy(settings, folder, run, prompts, validation, fold)
    return Outcome(
        counts={"train_pairs": len(train), "validation_pairs": len(validation)},
        metrics={"validation_pair_accuracy": accuracies},
    )


def train_pair_head(
    target: Path,
    settings: PairHeadReward,
    vectors: TextVectors,
    prompts: dict[str, Prompt],
    pairs: list[PreferencePair],
    *,
    seed: int,
    label: str,
) -> None:
    """Fit a head on the vectors of these pairs and save it with its loss curve."""
    x_ND, chosen_ND, rejected_ND = (
        torch.from_numpy(vectors(texts))
        for texts in (
            [prompts[pair.prompt_id].text for pair in pairs],
            [pair.chosen for pair in pairs],
            [pair.rejected for pair in pairs],
        )
    )
    group_N = np.array([pair.prompt_id for pair in pairs])
    model, curve = fit_pair_head(settings, x_ND, chosen_ND, rejected_ND, group_N, seed=seed, label=label)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    (target / "metrics.jsonl").write_text(
        "".join(json.dumps(entry) + "\n" for entry in curve), encoding="utf-8"
    )


def pair_accuracy(
    settings: PairHeadReward | BradleyTerryReward,
    folder: Path,
    run: Run,
    prompts: dict[str, Prompt],
    pairs: list[PreferencePair],
    fold: int | None,
) -> float:
    """Share of pairs whose chosen response has the higher reward."""
    return float((pair_margins(settings, folder, run.encoder_cache, prompts, pairs, fold=fold) > 0).mean())
