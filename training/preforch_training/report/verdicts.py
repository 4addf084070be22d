"""The targets that a run is held to, and what the report says by itself when one is missed."""

from preforch_training.report.policies.plan import ALL_TESTS, OFFLINE
from preforch_training.report.policies.records import Control, Difference, PolicyReport
from preforch_training.report.records import ConfidenceReport, OrchestratorReport, RewardReport, Verdict
from preforch_training.report.reward import correlation_warnings
from preforch_training.statistics.bootstrap import Interval
from preforch_training.statistics.predictors import CONSTANT, RECOMMENDED, SHUFFLED, F

TRUE_ORDER = 0.85
SHARES = {"test_phrasing": 0.85, "test_topic": 0.85, "test_both": 0.8}
TOPS = {"test_phrasing": 0.9, "test_topic": 0.9, "test_both": 0.8}
ONNX_DIFFERENCE = 1e-4
SPEARMAN = 0.8
UTILITY_GAIN = 0.3
CUT_SHARE = 0.1
SEPARATED = 0.6
"""AUROC that the confidence must be able to reach, by its interval, for every kind of unlike prompts."""
KNOWN = 0.6
FOREIGN = 0.2
"""Median confidence of the prompts of every held-out split, and of every kind of foreign text."""
FOREIGN_KINDS = ("code", "languages", "noise")
SHRUNK_SHARE = 0.2
"""Of the prompts of a held-out split; beyond it shrinkage acts on prompts that it is not meant for."""


def judge_run(
    rewards: RewardReport,
    orchestrator: OrchestratorReport,
    policy: PolicyReport | None,
    confidence: ConfidenceReport,
    onnx_difference: float,
) -> list[Verdict]:
    """Targets of all parts that this run has; those about the truth only where it is known."""
    verdicts = [
        *_reward_verdicts(rewards),
        *_orchestrator_verdicts(orchestrator),
        *_confidence_verdicts(confidence),
    ]
    verdicts.append(
        Verdict(
            name="largest difference between torch and ONNX",
            value=onnx_difference,
            target=f"<= {ONNX_DIFFERENCE:g}",
            reached=onnx_difference <= ONNX_DIFFERENCE,
        )
    )
    return verdicts if policy is None else [*verdicts, *_control_verdicts(policy), *_utility_verdicts(policy)]


def find_warnings(
    rewards: RewardReport,
    orchestrator: OrchestratorReport,
    policy: PolicyReport | None,
    confidence: ConfidenceReport,
) -> list[str]:
    """What the report says by itself, one sentence each, in the order of its parts."""
    warnings = correlation_warnings(rewards)
    for entry in orchestrator.predictors:
        if entry.name == F and entry.explained_kl.low <= 0:
            warnings.append(
                f"{entry.split}: the orchestrator explains its targets no better than a constant does, "
                f"explained KL {entry.explained_kl}"
            )
    for gain in served_gains(policy) if policy else ():
        against_constant = (gain.first.arm, gain.second.arm) == (RECOMMENDED, CONSTANT)
        if against_constant and gain.difference.low <= 0:
            warnings.append(
                "recommended weights do not beat the best constant beyond chance, "
                f"difference in utility {gain.difference}"
            )
    if policy is not None and policy.served in policy.fixed:
        warnings.append(
            "the served policy reads no weights: it answers alike whatever is recommended or asked for, so "
            "that there is no control to measure and no gain of recommended weights"
        )
    if policy is not None and policy.unfinished > CUT_SHARE * policy.responses:
        warnings.append(f"{policy.unfinished} of {policy.responses} responses were cut at the token limit")
    return [*warnings, *_confidence_warnings(confidence)]


def _confidence_warnings(confidence: ConfidenceReport) -> list[str]:
    """Kinds of unlike prompts that the confidence takes for held-out ones."""
    reasons = {"long": " (very long prompts look like training prompts once they are cut)"}
    blind = [
        f"the confidence does not tell prompts of kind {entry.kind!r} from held-out ones, AUROC "
        f"{entry.served}" + reasons.get(entry.kind, "")
        for entry in confidence.unlike
        if entry.served.high < SEPARATED
    ]
    strict = [
        f"{entry.split}: {entry.shrunk:.0%} of the prompts are taken for unfamiliar, "
        "and their weights shrunk towards the fallback"
        for entry in confidence.held_out
        if entry.shrunk is not None and entry.shrunk > SHRUNK_SHARE
    ]
    return [*blind, *strict]


def _at_least(name: str, found: Interval | None, bound: float) -> Verdict:
    return Verdict(
        name=name,
        value=None if found is None else found.value,
        interval=found,
        target=f">= {bound:g}",
        reached=found is not None and found.value >= bound,
    )


def _reward_verdicts(rewards: RewardReport) -> list[Verdict]:
    """The worst objective of every split whose true order is known."""
    known = [(entry, entry.true_order) for entry in rewards.accuracies if entry.true_order is not None]
    verdicts = []
    for split in dict.fromkeys(entry.split for entry, _ in known):
        entry, order = min((pair for pair in known if pair[0].split == split), key=lambda pair: pair[1].value)
        verdicts.append(
            _at_least(f"true order, worst reward model ({entry.objective}), {split}", order, TRUE_ORDER)
        )
    return verdicts


def _orchestrator_verdicts(orchestrator: OrchestratorReport) -> list[Verdict]:
    shares = {entry.split: entry.share for entry in orchestrator.ceilings}
    tops = {entry.split: entry.true_top for entry in orchestrator.predictors if entry.name == F}
    return [
        *(
            _at_least(f"share of the oracle's ceiling, {s}", shares[s], SHARES[s])
            for s in SHARES
            if s in shares
        ),
        *(_at_least(f"largest weight named, {s}", tops[s], TOPS[s]) for s in TOPS if tops.get(s) is not None),
    ]


def _confidence_verdicts(confidence: ConfidenceReport) -> list[Verdict]:
    """High for prompts of the training kind and low for foreign ones, where familiarity is known."""
    high = [
        Verdict(
            name=f"median confidence, {entry.split}",
            value=entry.median,
            target=f">= {KNOWN:g}",
            reached=entry.median >= KNOWN,
        )
        for entry in confidence.held_out
        if entry.median is not None
    ]
    low = [
        Verdict(
            name=f"median confidence, {entry.kind}",
            value=entry.median,
            target=f"<= {FOREIGN:g}",
            reached=entry.median <= FOREIGN,
        )
        for entry in confidence.unlike
        if entry.median is not None and entry.kind in FOREIGN_KINDS
    ]
    return [*high, *low]


def served_control(policy: PolicyReport) -> list[Control]:
    """Control of the served policy on the control split, by true rewards where they are known;
    none where it reads no weights."""
    if policy.served in policy.fixed:
        return []
    split = policy.sweep[-1].split
    rows = [entry for entry in policy.control if entry.policy == policy.served and entry.split == split]
    measure = "true" if any(entry.measure == "true" for entry in rows) else "calibrated"
    return [entry for entry in rows if entry.measure == measure]


def served_gains(policy: PolicyReport) -> list[Difference]:
    """What the served policy gains, and where: one split has too few prompts to tell, all test splits
    together decide."""
    return [
        gain for gain in policy.differences if gain.first.policy == policy.served and gain.split == ALL_TESTS
    ]


def _control_verdicts(policy: PolicyReport) -> list[Verdict]:
    return [
        _at_least(f"control of {entry.objective}, {entry.policy}, {entry.split}", entry.spearman, SPEARMAN)
        for entry in served_control(policy)
    ]


def _utility_verdicts(policy: PolicyReport) -> list[Verdict]:
    verdicts = []
    for gain in served_gains(policy):
        name, found = f"utility, {gain.first} - {gain.second}", gain.difference
        ends = (gain.first.arm, gain.second.arm)
        if ends == (RECOMMENDED, CONSTANT):
            target, reached = (
                f">= {UTILITY_GAIN:g}, interval above 0",
                found.value >= UTILITY_GAIN and found.low > 0,
            )
        elif ends == (RECOMMENDED, SHUFFLED):
            target, reached = "interval above 0", found.low > 0
        elif ends == (SHUFFLED, CONSTANT):
            target, reached = "interval below 0", found.high < 0
        elif ends == (RECOMMENDED, RECOMMENDED) and gain.second.policy == OFFLINE:
            target, reached = "interval above 0", found.low > 0
        else:
            continue
        verdicts.append(Verdict(name=name, value=found.value, interval=found, target=target, reached=reached))
    return verdicts
