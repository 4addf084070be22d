"""What the online rounds of a run sampled and kept, as their manifests say.

In:  the rounds of each policy. Out: one record for every round that sampled.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from preforch_models.manifest import Manifest, read_manifest

from preforch_training.policy.checkpoint import read_policy_info
from preforch_training.report.records import OnlineRound


def report_rounds(policies: Mapping[str, Sequence[Path]], names: Sequence[str]) -> list[OnlineRound]:
    """The online rounds of all policies, in order."""
    found = []
    for policy, folders in policies.items():
        for folder in folders:
            manifest = read_manifest(folder, kind="policy")
            if "samples" in manifest.counts:
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
