"""Stage `orchestrator`: fit f(x) to the overall pairs (paper, Eq. 6 to 8).

In:  overall pairs, their calibrated rewards (out-of-fold on training prompts, unless rewards have no fold
     models).
Out: `orchestrator/`: a Hugging Face checkpoint with its tokenizer, `orchestrator.json`,
     `metrics.jsonl` (losses by step, or by penalty where the encoder is frozen).

Departures from the paper:
1. Early stopping on held-out loss, unless `patience = "off"`.
2. A choice of targets and losses (`targets`).
3. With `train_encoder = false` the encoder stays as it is and the head is trained to convergence
   (`linear_head`).
4. tau of f may be chosen by the likelihood of the validation pairs (`temperature`).
5. Prompts unlike the training prompts get weights nearer to the fallback (`familiarity`).
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from preforch_training.orchestrator.artifact import OrchestratorInfo, write_orchestrator_info
from preforch_training.orchestrator.config import Config
from preforch_training.orchestrator.familiarity import add_confidence
from preforch_training.orchestrator.fine_tuning import fit
from preforch_training.orchestrator.fitting import Fitted, Targets, fit_frozen
from preforch_training.orchestrator.prediction import serve_vectors
from preforch_training.orchestrator.targets import best_constant, labels_for, target_values
from preforch_training.orchestrator.temperature import FIT, fit_tau
from preforch_training.paths import naming
from preforch_training.records import by_id
from preforch_training.reward.scoring import RunRewards
from preforch_training.run import Outcome, Run, origin_of
from preforch_training.scores.pairs import pair_rewards
from preforch_training.scores.table import read_calibration, read_scores


def build(run: Run, config: Config) -> None:
    """Make `orchestrator/`."""

    def make(folder: Path, work: Path) -> Outcome:
        train, validation = (read_targets(run, config, split=split) for split in ("train", "validation"))
        if config.train_encoder:
            fitted = fit(
                config,
                run.names,
                train,
                validation,
                folder=folder,
                work=work,
                seed=run.seed_for("orchestrator"),
                tracking=run.tracking("orchestrator"),
            )
        else:
            fitted = fit_frozen(config, run.names, train, validation, folder=folder, cache=run.encoder_cache)
        tau, chosen = choose_tau(run, config, fitted)
        fallback_K = best_constant(
            train.labels_NK, loss=config.loss, tau=tau, entropy_prior=config.entropy_prior
        )
        train_ND, held_out_MD = (fitted.vectors(sorted(set(rows.texts))) for rows in (train, validation))
        familiar = add_confidence(
            fitted.model, train_ND, held_out_MD, fallback_K=fallback_K, confidence=config.confidence
        )
        fitted.model.save_pretrained(folder)
        fitted.tokenizer.save_pretrained(folder)
        mean_K = serve_vectors(fitted.model, train_ND).weights_NK.mean(axis=0)
        weights = {
            "fallback": dict(zip(run.names, fallback_K.tolist(), strict=True)),
            "mean_weights": dict(zip(run.names, mean_K.tolist(), strict=True)),
        }
        write_orchestrator_info(folder, OrchestratorInfo(config=config, tau=tau, **weights))
        counts = {"train_rows": len(train.texts), "validation_rows": len(validation.texts)}
        return Outcome(counts=counts, metrics={**fitted.numbers, **chosen, **familiar, **weights})

    recipe = config.model_dump(mode="json") | {
        "objectives": list(run.names),
        "seed": run.seed,
        "origin": origin_of(config.encoder),
    }
    with naming("orchestrator.encoder", config.encoder):
        run.make(
            run.orchestrator,
            kind="orchestrator",
            config=recipe,
            inputs={"data": run.data, "scores": run.scores},
            build=make,
        )


def choose_tau(run: Run, config: Config, fitted: Fitted) -> tuple[float, dict[str, float]]:
    """tau of f, and what is known of its choice; where the validation pairs choose it, f changes to it."""
    if config.tau != FIT:
        return config.training_tau, {}
    scored = [entry for entry in read_scores(run.scores) if entry.split == "validation"]
    pairs, prompts = pair_rewards(scored, read_calibration(run.scores), run.names), by_id(run.prompts())
    vectors_ND = fitted.vectors([prompts[prompt_id].text for prompt_id in pairs.prompt_ids])
    head = fitted.model.head
    with torch.no_grad():
        values_NK = head(torch.from_numpy(vectors_ND).float()).double().numpy()
        found = fit_tau(values_NK, pairs.chosen_NK - pairs.rejected_NK)
        head.weight.div_(found.tau)
        head.bias.div_(found.tau)
    return found.tau, asdict(found)


def read_targets(run: Run, config: Config, *, split: str) -> Targets:
    """Texts and labels of a split's overall pairs."""
    scored = [entry for entry in read_scores(run.scores) if entry.split == split]
    in_sample = [entry.pair_id for entry in scored if entry.split == "train" and entry.fold is None]
    if in_sample and RunRewards(run).folds:
        raise ValueError(
            f"pair {in_sample[0]} has in-sample scores; targets need out-of-fold ones, unless "
            '[reward] folds = "off" asks for in-sample scores'
        )
    pairs = pair_rewards(scored, read_calibration(run.scores), run.names)
    labels_NK = labels_for(pairs, target=config.target, tau=config.training_tau, loss=config.loss)
    rows = list(range(len(labels_NK)))
    if config.loss != "bt_gate" and config.target != "margin_softmax":
        # Values that do not depend on the rejected response repeat for every pair of a prompt; a margin is of
        # its pair.
        values_NK = target_values(pairs.chosen_NK, pairs.rejected_NK, pairs.others_NK, target=config.target)
        keys = zip(pairs.prompt_ids, np.round(values_NK, 9).tolist(), strict=True)
        # Reversed, so that the first of equal rows stays.
        first = {(id_, tuple(values)): row for row, (id_, values) in reversed(list(enumerate(keys)))}
        rows = sorted(first.values())
    prompts = by_id(run.prompts())
    return Targets(texts=[prompts[pairs.prompt_ids[row]].text for row in rows], labels_NK=labels_NK[rows])
