"""Runs that differ in their seed only, summarised: every headline number with its mean and 95% t-interval.

In:  run folders with finished reports. Out: a Markdown table.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from preforch_models.manifest import ArtifactError
from preforch_models.run_folder import read_run_info
from scipy.stats import t as student

from preforch_training.report.policies.records import PolicyReport
from preforch_training.report.records import Report, read_report
from preforch_training.statistics.markdown import table


def summarise(folders: Sequence[Path]) -> str:
    """The table. Raises ValueError for fewer than two runs, or runs that differ in more than the seed,
    ArtifactError where a run has no report."""
    for folder in folders:
        if read_run_info(folder) is None:
            raise ArtifactError(f"{folder}: not a run, so there is no report of one seed")
    reports = [read_report(folder / "report") for folder in folders]
    check_comparable(folders, reports)
    numbers = [headlines(report) for report in reports]
    seeds = ", ".join(str(report.seed) for report in reports)
    rows = [_row(name, [found[name] for found in numbers if name in found]) for name in numbers[0]]
    first = reports[0]
    settings = f"preset `{first.preset}`, otherwise {'; '.join(first.overrides) or 'nothing'}"
    return f"{len(reports)} runs, seeds {seeds}, {settings}; 95% t-intervals over the runs.\n\n" + table(
        ["number", "mean", "95% interval", "runs", "each run"], rows
    )


def check_comparable(folders: Sequence[Path], reports: Sequence[Report]) -> None:
    """Raise ValueError unless there are two runs or more, alike in everything but distinct seeds."""
    if len(reports) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 runs, got {len(reports)}")
    for folder, report in zip(folders, reports, strict=True):
        for field in ("preset", "overrides", "world", "method", "objectives"):
            if getattr(report, field) != getattr(reports[0], field):
                raise ValueError(
                    f"{folder}: {field} is {getattr(report, field)}, but {getattr(reports[0], field)} in "
                    f"{folders[0]}; runs may differ in their seed only"
                )
    seeds = [report.seed for report in reports]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must differ, got {seeds}")


def headlines(report: Report) -> Mapping[str, float]:
    """Every target's number, explained KL of predictors, AUROC of the confidence, utilities,
    seconds of the run."""
    # Which objective is the worst, in brackets, differs from seed to seed.
    numbers = {re.sub(r" \(.*?\)", "", v.name): v.value for v in report.verdicts if v.value is not None}
    for entry in report.orchestrator.predictors:
        numbers[f"explained KL, {entry.name}, {entry.split}"] = entry.explained_kl.value
        numbers[f"preference accuracy, {entry.name}, {entry.split}"] = entry.preference_accuracy.value
    numbers["tau of f"] = report.tau
    for kind in report.confidence.unlike:
        numbers[f"AUROC of the confidence, {kind.kind}"] = kind.served.value
    for gain in report.policy.utilities if report.policy else ():
        numbers[f"utility, {gain.arm}, {gain.split}"] = gain.utility.value
    numbers |= _of_policies(report.policy) if report.policy else {}
    numbers["seconds, all stages"] = sum(stage.seconds for stage in report.stages)
    return numbers


def _of_policies(policy: PolicyReport) -> dict[str, float]:
    """Of all policies: paired differences, control, fronts, rewards under equal weights, texts, curves."""
    numbers: dict[str, float] = {}
    for difference in policy.differences:
        name = f"{difference.first} - {difference.second}, {difference.split}"
        numbers[f"utility, {name}"] = difference.difference.value
    for control in policy.control:
        place = f"{control.policy}, {control.objective}, {control.split}, {control.measure}"
        numbers[f"Spearman, {place}"] = control.spearman.value
        numbers[f"Kendall, {place}"] = control.kendall.value
    for front in policy.fronts:
        place = f"{front.policy}, {front.measure}"
        numbers[f"hypervolume, {place}"] = front.hypervolume.value
        numbers[f"expected utility, {place}"] = front.expected_utility.value
        numbers[f"epsilon, {place}"] = front.epsilon.value
    for equal in policy.equal_weights:
        place = f"equal weights, {equal.policy}, {equal.measure}"
        numbers[f"mean reward, {place}"] = equal.mean.value
        numbers |= {f"{name}, {place}": reward.value for name, reward in equal.rewards.items()}
    for text in policy.texts:
        numbers[f"distinct, {text.arm}"] = text.distinct
        numbers[f"distinct 3-grams, {text.arm}"] = text.distinct_grams
        numbers[f"repeated sentences, {text.arm}"] = text.repeated
        numbers[f"words, {text.arm}"] = text.words
        numbers |= {f"KL, {text.arm}": text.kl.value} if text.kl else {}
    for point in policy.curves:
        place = f"{point.policy}, {point.samples} samples"
        numbers[f"learned utility, {place}"] = point.learned.value
        numbers |= {f"true utility, {place}": point.utility.value} if point.utility else {}
        numbers |= {f"KL, {place}": point.kl.value} if point.kl else {}
    return numbers


def _row(name: str, values: Sequence[float]) -> list[object]:
    each = ", ".join(f"{value:.3g}" for value in values)
    mean = statistics.mean(values)
    if len(values) < 2:
        return [name, f"{mean:.3g}", "", len(values), each]
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return [name, f"{mean:.3g}", f"[{mean - half:.3g}, {mean + half:.3g}]", len(values), each]
