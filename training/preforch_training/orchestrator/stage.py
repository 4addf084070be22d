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
5. A confidence that is low for prompts unlike the training prompts, which may get weights nearer to the
   fallback (`confidence.familiarity`).
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from preforch_models.orchestrator_options import Confidence

from preforch_training.embeddings.stored import StoredVectors, scratch_folder, store_vectors
from preforch_training.orchestrator.artifact import OrchestratorInfo, write_orchestrator_info
from preforch_training.orchestrator.confidence.familiarity import (
    FOREIGN_TEXTS,
    METHOD,
    MOST_PROMPTS,
    add_confidence,
)
from preforch_training.orchestrator.confidence.foreign_texts import foreign_texts, vocabulary_words
from preforch_training.orchestrator.config import Config
from preforch_training.orchestrator.fine_tuning import fit
from preforch_training.orchestrator.fitting import Distinct, Fitted, Targets, fit_frozen, in_parts
from preforch_training.orchestrator.prediction import serve_vectors
from preforch_training.orchestrator.targets import best_constant, labels_for, target_values
from preforch_training.orchestrator.temperature import FIT, fit_tau
from preforch_training.paths import naming
from preforch_training.records import ScoredResponse, first_places
from preforch_training.reward.scoring import RunRewards
from preforch_training.run import Outcome, Run, origin_of
from preforch_training.scores.pairs import pair_rewards
from preforch_training.scores.table import each_score, read_calibration


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
            fitted = fit_frozen(
                config,
                run.names,
                train,
                validation,
                folder=folder,
                work=work,
                cache=run.encoder_cache,
            )
        tau, chosen = choose_tau(run, config, fitted)
        fallback_K = best_constant(
            train.labels_NK, loss=config.loss, tau=tau, entropy_prior=config.entropy_prior
        )
        familiar, mean_K = know_prompts(
            fitted, train, validation, config.confidence, fallback_K=fallback_K, work=work, seed=run.seed
        )
        fitted.model.save_pretrained(folder)
        fitted.tokenizer.save_pretrained(folder)
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
    if config.confidence != "off":
        recipe["familiarity"] = METHOD
    with naming("orchestrator.encoder", config.encoder):
        run.make(
            run.orchestrator,
            kind="orchestrator",
            config=recipe,
            inputs={"data": run.data, "scores": run.scores},
            build=make,
        )


def foreign_prompts(tokenizer: Any, *, seed: int) -> list[str]:
    """What the confidence should know as foreign, as the orchestrator reads prompts."""
    words = vocabulary_words(tokenizer, seed=seed)
    texts = foreign_texts(half="fitted", words=words, seed=seed, count=FOREIGN_TEXTS)
    return [text for kind in texts.values() for text in kind]


def know_prompts(
    fitted: Fitted,
    train: Targets,
    validation: Targets,
    confidence: Confidence,
    *,
    fallback_K: np.ndarray,
    work: Path,
    seed: int,
) -> tuple[dict[str, float], np.ndarray]:
    """Add the confidence, unless it is off, with numbers of it, and average the weights that training prompts
    are served, (K,)."""
    with scratch_folder(work) as scratch:

        def stored(name: str, rows: Targets) -> StoredVectors:
            return store_vectors(
                scratch / name, in_parts(fitted.vectors, Distinct(rows.texts).of(rows.texts))
            )

        known, numbers = stored("train", train), {}
        if confidence != "off":
            numbers = add_confidence(
                fitted.model,
                known.sample(MOST_PROMPTS),
                stored("validation", validation).sample(MOST_PROMPTS),
                fitted.vectors(foreign_prompts(fitted.tokenizer, seed=seed)),
                fallback_K=fallback_K,
                confidence=confidence,
            )
        served = (serve_vectors(fitted.model, block).weights_NK for block in known.blocks())
        return numbers, sum(weights_NK.sum(axis=0) for weights_NK in served) / len(known)


def choose_tau(run: Run, config: Config, fitted: Fitted) -> tuple[float, dict[str, float]]:
    """tau of f, and what is known of its choice; where the validation pairs choose it, f changes to it."""
    if config.tau != FIT:
        return config.training_tau, {}
    scored = each_score(run.scores, split="validation")
    pairs = pair_rewards(scored, read_calibration(run.scores), run.names)
    vectors = in_parts(fitted.vectors, run.stored_prompts().texts(pairs.prompt_key_N))
    head = fitted.model.head
    with torch.no_grad():
        values = [head(torch.from_numpy(part).float()).double().numpy() for part in vectors]
        values_NK = np.concatenate([np.empty((0, len(run.names))), *values])
        found = fit_tau(values_NK, pairs.chosen_NK - pairs.rejected_NK)
        head.weight.div_(found.tau)
        head.bias.div_(found.tau)
    return found.tau, asdict(found)


def read_targets(run: Run, config: Config, *, split: str) -> Targets:
    """Texts and labels of a split's overall pairs."""
    pairs = pair_rewards(_out_of_fold(run, split), read_calibration(run.scores), run.names)
    labels_NK = labels_for(pairs, target=config.target, tau=config.training_tau, loss=config.loss)
    row_M = np.arange(len(labels_NK))
    if config.loss != "bt_gate" and config.target != "margin_softmax":
        # Values that do not depend on the rejected response repeat for every pair of a prompt; a margin is of
        # its pair.
        values_NK = target_values(pairs.chosen_NK, pairs.rejected_NK, pairs.others_NK, target=config.target)
        row_M = first_of_equals(pairs.prompt_key_N, values_NK)
    texts = run.stored_prompts().texts(pairs.prompt_key_N[row_M])
    return Targets(texts=texts, labels_NK=labels_NK[row_M])


def first_of_equals(prompt_key_N: np.ndarray, values_NK: np.ndarray) -> np.ndarray:
    """The first row of every prompt and values, to nine digits, (M,)."""
    # Plus zero, because -0 and 0 are the same number and not the same bytes.
    rounded_NK = np.round(values_NK, 9) + 0.0
    keys = (hash((int(key), row_K.tobytes())) for key, row_K in zip(prompt_key_N, rounded_NK, strict=True))
    return first_places(np.fromiter(keys, dtype=np.int64))[0]


def _out_of_fold(run: Run, split: str) -> Iterator[ScoredResponse]:
    """A split's scored responses. Raises ValueError naming a pair whose scores are in-sample and should not
    be."""
    has_folds = cache(lambda: RunRewards(run).folds > 0)
    for entry in each_score(run.scores, split=split):
        if entry.split == "train" and entry.fold is None and has_folds():
            raise ValueError(
                f"pair {entry.pair_id} has in-sample scores; targets need out-of-fold ones, unless "
                '[reward] folds = "off" asks for in-sample scores'
            )
        yield entry
