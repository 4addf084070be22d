"""What the online rounds of a run sampled and kept, as their manifests say.

In:  the rounds of each policy. Out: one record for every round that sampled, and their tables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from preforch_models.manifest import Manifest, read_manifest

from preforch_training.policy.checkpoint import read_policy_info
from preforch_training.report.policies.records import OnlineRound
from preforch_training.statistics.document import Block, Table


def report_rounds(policies: Mapping[str, Sequence[Path]], names: Sequence[str]) -> list[OnlineRound]:
    """The online rounds of all policies of kind `wic`, in order."""
    found = []
    for policy, folders in policies.items():
        for folder in folders:
            manifest = read_manifest(folder, kind="policy")
            if "kept_prompts" in manifest.metrics:
                number = read_policy_info(folder).round
                assert number is not None, "only the base has no round"
                found.append(_online_round(policy, number, manifest, names))
    return found


def _online_round(policy: str, number: int, manifest: Manifest, names: Sequence[str]) -> OnlineRound:
    metrics = manifest.metrics
    compared = names if "own_fold.kept_changes" in metrics else ()
    return OnlineRound(
        policy=policy,
        round=number,
        samples=manifest.counts["samples"],
        **{
            key: metrics[key]
            for key in ("kept_prompts", "below_best_known", "gain_over_known", "utility", "utility_kept")
        },
        own_fold_mean={name: metrics[f"own_fold.{name}.mean"] for name in compared},
        own_fold_sd={name: metrics[f"own_fold.{name}.sd"] for name in compared},
        kept_changes=metrics.get("own_fold.kept_changes"),
    )


def round_tables(rounds: Sequence[OnlineRound]) -> list[Block]:
    """What each round kept, and, where rewards have folds, what it changes to score by a prompt's own one."""
    kept = Table(
        "Samples of every online round",
        [
            "policy",
            "round",
            "samples",
            "prompts kept",
            "best sample below the best known response",
            "utility of samples",
            "of kept ones",
            "of kept ones, above the best known response",
        ],
        [
            [
                r.policy,
                r.round,
                r.samples,
                *(f"{v:.3g}" for v in (r.kept_prompts, r.below_best_known)),
                *(f"{v:.3g}" for v in (r.utility, r.utility_kept, r.gain_over_known)),
            ]
            for r in rounds
        ],
    )
    compared = [r for r in rounds if r.kept_changes is not None]
    if not compared:
        return [kept]
    folds = Table(
        "Rewards by the models of a prompt's own fold",
        [
            "policy",
            "round",
            "own-fold minus full rewards, mean (deviation)",
            "prompts of which that changes what is kept",
        ],
        [
            [
                r.policy,
                r.round,
                ", ".join(f"{k} {r.own_fold_mean[k]:.2f} ({r.own_fold_sd[k]:.2f})" for k in r.own_fold_mean),
                f"{r.kept_changes:.3g}",
            ]
            for r in compared
        ],
    )
    reading = (
        "Utility: calibrated rewards under the asked weights. Samples of training prompts are scored by the "
        "reward models of the prompt's own fold, which never saw its pairs; the second table says what the "
        "full models would have changed, on the first prompts of a round."
    )
    return [kept, folds, reading]
