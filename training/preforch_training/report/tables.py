"""The report as Markdown. In: a `Report` and the names of its plots. Out: text;
every table is one function."""

from collections.abc import Mapping, Sequence

from preforch_training.orchestrator.temperature import FIT
from preforch_training.report.policies.rounds import round_tables
from preforch_training.report.records import (
    ConfidenceReport,
    OrchestratorReport,
    PolicyReport,
    Report,
    RewardReport,
    Stability,
    StageCost,
    TextMeasures,
    Verdict,
)
from preforch_training.statistics.markdown import correlation_table, table
from preforch_training.study.tables import render_study


def render(report: Report, images: Mapping[str, str]) -> str:
    """The whole text; `images`: file names by title, linked at the end."""
    method = report.method
    if method["tau"] == FIT:
        method = {**method, "tau": f"{FIT}, {report.tau:.3g}"}
    parts = [
        "# Report",
        f"Preset `{report.preset}`, seed {report.seed}, objectives {', '.join(report.objectives)}. "
        + ", ".join(f"{key} `{value}`" for key, value in method.items())
        + f". World: {f'`{report.world[:16]}`' if report.world else 'real data, the truth is unknown'}.",
        f"Otherwise than the preset: {'; '.join(report.overrides) or 'nothing'}.",
        "Intervals are 95%, bootstrap over prompts.",
        "## Targets",
        verdict_table(report.verdicts),
        *(
            ["## Warnings", "\n".join(f"* {warning}" for warning in report.warnings)]
            if report.warnings
            else []
        ),
        "## Reward models",
        reward_tables(report.rewards),
        "## Orchestrator",
        orchestrator_tables(report.orchestrator),
        "## Confidence",
        confidence_table(report.confidence),
        "## Stability",
        stability_table(report.stability),
        *(["## Policy", policy_tables(report.policy)] if report.policy else []),
        *(["## Online rounds", round_tables(report.rounds)] if report.rounds else []),
        *(["## Study", render_study(report.study)] if report.study else []),
        "## Time and memory",
        stage_table(report.stages),
        "## Plots",
        *(f"![{title}]({name})" for title, name in images.items()),
    ]
    return "\n\n".join(parts) + "\n"


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Each target, what was measured, and whether it is reached."""
    return table(
        ["target", "measured", "wanted", "reached"],
        [
            [v.name, v.interval or _number(v.value), v.target, "yes" if v.reached else "**no**"]
            for v in verdicts
        ],
    )


def reward_tables(rewards: RewardReport) -> str:
    """Accuracies, correlations of margins, calibration."""
    accuracies = table(
        ["objective", "split", "pairs", "accuracy", "agrees with the true order"],
        [[a.objective, a.split, a.pairs, a.accuracy, a.true_order] for a in rewards.accuracies],
    )
    constants = rewards.calibration.constants
    calibration = table(
        [f"calibration `{rewards.calibration.method}`", "offset", "scale"],
        [[name, f"{c.offset:.4f}", f"{c.scale:.4f}"] for name, c in constants.items()],
    )
    return "\n\n".join([accuracies, correlation_table(rewards.correlations), calibration])


def orchestrator_tables(orchestrator: OrchestratorReport) -> str:
    """Predictors, the ceiling, weights by split and family."""
    predictors = table(
        [
            "split",
            "weights",
            "explained KL",
            "preference accuracy",
            "KL, true weights",
            "explained, true weights",
            "largest weight named",
        ],
        [
            [
                p.split,
                p.name,
                p.explained_kl,
                p.preference_accuracy,
                p.true_kl,
                p.true_explained_kl,
                p.true_top,
            ]
            for p in orchestrator.predictors
        ],
    )
    ceilings = table(
        ["split", "ceiling (explained KL of the oracle)", "share of the ceiling"],
        [[c.split, c.oracle, c.share] for c in orchestrator.ceilings],
    )
    weights = table(
        ["prompts", "number", "mean weights (spread)", "mean true weights"],
        [
            [
                f"{w.kind} {w.group}",
                w.prompts,
                ", ".join(f"{name} {w.mean[name]:.2f} ({w.spread[name]:.2f})" for name in w.mean),
                _named(w.true_mean),
            ]
            for w in orchestrator.weights
        ],
    )
    return "\n\n".join([predictors, *([ceilings] if orchestrator.ceilings else []), weights])


def confidence_table(confidence: ConfidenceReport) -> str:
    """Each kind of unlike prompts against held-out ones, and how to read it."""
    held_out = [
        [h.split, h.prompts, "", "", "", _number(h.kept), _number(h.shrunk)] for h in confidence.held_out
    ]
    unlike = [
        [
            u.kind,
            u.prompts,
            u.certainty,
            u.familiarity,
            u.confidence,
            _number(u.kept),
            "",
        ]
        for u in confidence.unlike
    ]
    header = ["prompts", "number", "AUROC of certainty", "of familiarity", "of confidence", "mean g", "g < 1"]
    reading = (
        "AUROC: the chance that a held-out prompt scores above one of this kind; 0.5 tells nothing. Very "
        "long prompts are held-out ones in a row, of which no more is read than `max_tokens`. "
    ) + (
        "Weights are g f(x) + (1 - g) fallback: g should be 1 for most held-out prompts and low for the "
        "others."
        if confidence.mode == "shrink"
        else f"Confidence is `{confidence.mode}`: all prompts get f(x) itself."
    )
    return table(header, [*held_out, *unlike]) + "\n\n" + reading


def stability_table(stability: Sequence[Stability]) -> str:
    """Each rewording beside unrelated prompts, and how to read it."""
    reading = (
        "Distance: total variation between the weights of a prompt and of its rewording, for prompts that it "
        "changes. Good is far below that of unrelated prompts; where that is small too, weights hardly vary "
        "at all. 0: the encoder does not see the change (lower case, where it is uncased). Surface "
        "rewordings are a lower bar than true paraphrases; another phrasing, in the demo world only, shares "
        "family and topic, not always the question."
    )
    rows = [[s.kind, s.distance.groups, s.distance, s.same_top, s.true_distance] for s in stability]
    header = ["rewording", "prompts", "distance", "largest weight stays", "distance, true weights"]
    return table(header, rows) + "\n\n" + reading


def policy_tables(policy: PolicyReport) -> str:
    """Control, sweep, utilities, differences, as far as there are any:
    a policy that reads no weights has no control."""
    parts = [
        f"{policy.responses} responses drawn in {policy.sampling_seconds:.0f} s, "
        f"{policy.unfinished} cut at the token limit.",
    ]
    if policy.fixed:
        parts.append(
            f"Read no weights, and are judged by what they answer anyway: {', '.join(policy.fixed)}. "
            "There is nothing to control or to sweep in them."
        )
    if policy.control:
        parts.append(
            table(
                ["policy", "split", "rewards", "objective", "Spearman, asked weight and mean reward"],
                [[c.policy, c.split, c.measure, c.objective, c.spearman] for c in policy.control],
            )
        )
    if policy.constant:
        parts.append(f"Best constant, chosen on validation prompts: {_named(policy.constant)}.")
    if policy.utilities:
        header = ["policy and weights", "split", "prompts", "utility"]
        parts.append(table(header, [[u.arm, u.split, u.utility.groups, u.utility] for u in policy.utilities]))
    if policy.differences:
        rows = [
            [f"{d.first} - {d.second}", d.split, d.difference.groups, d.difference]
            for d in policy.differences
        ]
        parts.append(table(["difference in utility", "split", "prompts", "value"], rows))
    if policy.texts:
        parts.append(text_table(policy.texts))
    if policy.sweep:
        parts.append(sweep_table(policy))
    return "\n\n".join(parts)


def text_table(texts: Sequence[TextMeasures]) -> str:
    """Diversity, repetition and length of what every policy answers."""
    return table(
        ["answers of", "answers", "distinct", "distinct 3-grams", "repeated sentences", "words"],
        [
            [
                t.arm,
                t.responses,
                *(f"{value:.3g}" for value in (t.distinct, t.distinct_grams, t.repeated, t.words)),
            ]
            for t in texts
        ],
    )


def sweep_table(policy: PolicyReport) -> str:
    """Mean rewards of every point of the grid."""
    return table(
        ["policy", "rewards", "asked", "mean rewards", "strictly dominated"],
        [
            [
                p.policy,
                p.measure,
                " / ".join(f"{value:.2f}" for value in p.weights.values()),
                ", ".join(f"{name} {reward}" for name, reward in p.rewards.items()),
                "yes" if p.dominated else "",
            ]
            for p in policy.sweep
        ],
    )


def stage_table(stages: Sequence[StageCost]) -> str:
    """Seconds and peak memory."""
    rows = [[s.stage, f"{s.seconds:.1f}", f"{s.peak_memory_mib:.0f}"] for s in stages]
    return table(
        ["stage", "seconds", "peak memory, MiB"],
        [*rows, ["all", f"{sum(s.seconds for s in stages):.1f}", ""]],
    )


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _named(values: Mapping[str, float] | None) -> str:
    return "" if values is None else ", ".join(f"{name} {value:.2f}" for name, value in values.items())
