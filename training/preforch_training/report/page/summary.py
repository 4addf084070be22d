"""What a run came to, in sentences that a reader who knows nothing of its parts can act on.

In:  a `Report`. Out: a sentence or two for each question, with the numbers and their intervals.
"""

from collections.abc import Callable, Sequence

from preforch_training.report.policies.plan import ALL_TESTS
from preforch_training.report.policies.records import Arm, Difference, PolicyReport
from preforch_training.report.records import OrchestratorReport, Report, RewardReport, StageCost, Verdict
from preforch_training.report.verdicts import served_control
from preforch_training.statistics.bootstrap import Interval
from preforch_training.statistics.document import Bullets
from preforch_training.statistics.predictors import CONSTANT, NO_WEIGHTS, RECOMMENDED, F
from preforch_training.study.records import Study


def summarise_report(report: Report) -> Bullets:
    """One item for each question, in the order in which a reader asks them."""
    warnings = f"{len(report.warnings)}, listed below" if report.warnings else "none"
    return Bullets(
        [
            *target_lines(report.verdicts),
            *(policy_lines(report.policy) if report.policy else ["No policy is served."]),
            *orchestrator_lines(report.orchestrator),
            *reward_lines(report.rewards),
            *(study_lines(report.study) if report.study else []),
            cost_line(report.stages),
            f"Warnings: {warnings}.",
        ]
    )


def target_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """How many targets are reached, and each one that is missed."""
    missed = [verdict for verdict in verdicts if not verdict.reached]
    counts = f"{len(verdicts) - len(missed)} of {len(verdicts)} targets are reached."
    return [counts, *(f"Missed: {v.name} is {_measured(v)}, wanted {v.target}." for v in missed)]


def policy_lines(policy: PolicyReport) -> list[str]:
    """Which policy is served, what it is worth beside other weights and other policies, whether it
    listens."""
    reads = policy.served not in policy.fixed
    served = Arm(policy=policy.served, arm=RECOMMENDED if reads else NO_WEIGHTS)
    utilities = [u.utility for u in policy.utilities if u.arm == served and u.split == ALL_TESTS]
    known = f"its utility on {utilities[0].groups} test prompts is {utilities[0]}" if utilities else ""
    how = "under recommended weights" if reads else "it reads no weights"
    lines = [
        f"The policy `{policy.served}` is served: {how}, "
        f"{known or 'its utility is not known, because the true weights are not'}."
    ]
    differences = [d for d in policy.differences if d.first == served and d.split == ALL_TESTS]
    own = [d for d in differences if d.second.policy == policy.served]
    if own:
        lines.append(
            f"Against other weights for the same policy, that is {compare(own, lambda arm: arm.arm)}."
        )
    others = [d for d in differences if d.second.policy != policy.served]
    if others:
        lines.append(f"Against other policies, it is {compare(others, lambda arm: arm.policy)}.")
    return [*lines, *control_lines(policy)]


def compare(differences: Sequence[Difference], name: Callable[[Arm], str]) -> str:
    """What a difference is above, what below, and what it cannot be told from by its interval."""

    def those(wanted: Callable[[Interval], bool]) -> str:
        found = [entry for entry in differences if wanted(entry.difference)]
        return ", ".join(f"`{name(entry.second)}` (difference {entry.difference})" for entry in found)

    parts = {
        "above": those(lambda found: found.low > 0),
        "below": those(lambda found: found.high < 0),
        "not told apart from": those(lambda found: found.low <= 0 <= found.high),
    }
    return "; ".join(f"{words} {found}" for words, found in parts.items() if found)


def control_lines(policy: PolicyReport) -> list[str]:
    """Whether more weight on an objective brings more of it: the objective that follows best, and worst."""
    found = sorted(served_control(policy), key=lambda entry: entry.spearman.value)
    if not found:
        return [f"`{policy.served}` reads no weights, so that nothing can be asked of it."]
    shown = ", ".join(f"{entry.objective} {entry.spearman}" for entry in reversed(found))
    listens = "It listens" if found[0].spearman.low > 0 else "It does not listen in every objective"
    return [
        f"{listens}: rank correlation (Spearman) of the asked weight with the mean {found[0].measure} reward "
        f"is {shown}; 1 is best, 0 is deaf."
    ]


def orchestrator_lines(orchestrator: OrchestratorReport) -> list[str]:
    """What f(x) is worth beside the best constant, on the split where it orders the fewest preferences as
    labelled."""
    found = [entry for entry in orchestrator.predictors if entry.name == F]
    if not found:
        return []
    f = min(found, key=lambda entry: entry.preference_accuracy.value)
    constants = [p for p in orchestrator.predictors if (p.name, p.split) == (CONSTANT, f.split)]
    beside = f", the best constant {constants[0].preference_accuracy}" if constants else ""
    named = f" They name the largest true weight of {f.true_top} of the prompts." if f.true_top else ""
    return [
        f"Recommended weights order {f.preference_accuracy} of the preferences in `{f.split}` as labelled, "
        f"their lowest share of any split{beside}.{named}"
    ]


def reward_lines(rewards: RewardReport) -> list[str]:
    """The objective whose reward model orders the fewest pairs as labelled."""
    if not rewards.accuracies:
        return []
    worst = min(rewards.accuracies, key=lambda entry: entry.accuracy.value)
    return [
        f"The least accurate reward model, {worst.objective} in `{worst.split}`, orders {worst.accuracy} of "
        f"{worst.pairs} pairs as labelled."
    ]


def study_lines(study: Study) -> list[str]:
    """What orchestration gains over the best constant across folds."""
    rows = [row for entry in study.predictors if entry.choice == study.recommended for row in entry.rows]
    return [
        f"Over {study.folds} folds, recommended weights order {row.accuracy} of held-out preferences as "
        f"labelled, {row.gain} more than the best constant."
        for row in rows
        if row.name == F
    ]


def cost_line(stages: Sequence[StageCost]) -> str:
    """Time and memory of the whole run, and what took most."""
    longest = max(stages, key=lambda stage: stage.seconds)
    largest = max(stages, key=lambda stage: stage.peak_memory_mib)
    return (
        f"All stages before this report took {duration(sum(stage.seconds for stage in stages))}, the longest "
        f"`{longest.stage}` ({duration(longest.seconds)}). Memory peaked at {largest.peak_memory_mib:.0f} "
        f"MiB in `{largest.stage}`."
    )


def duration(seconds: float) -> str:
    """The two largest units that are not zero."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _measured(verdict: Verdict) -> str:
    if verdict.interval is not None:
        return str(verdict.interval)
    return "not measured" if verdict.value is None else f"{verdict.value:.3g}"
