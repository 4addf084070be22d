"""The report as a document. In: a `Report`. Out: its sections; every table is one function.

`report.md` is the document as Markdown, `report.page` writes the same sections as HTML.
"""

from collections.abc import Mapping, Sequence

from preforch_training.orchestrator.temperature import FIT
from preforch_training.report.page.summary import summarise_report
from preforch_training.report.policies.rounds import round_tables
from preforch_training.report.policies.tables import policy_tables
from preforch_training.report.records import (
    ConfidenceReport,
    OrchestratorReport,
    Report,
    RewardReport,
    Stability,
    StageCost,
    Verdict,
)
from preforch_training.statistics.document import Block, Bullets, Section, Table, correlation_table
from preforch_training.statistics.markdown import write_markdown
from preforch_training.study.tables import study_blocks


def render(report: Report, images: Mapping[str, str]) -> str:
    """The whole text as Markdown; `images`: file names by title, linked at the end."""
    links = Section("Plots", [f"![{title}]({name})" for title, name in images.items()])
    opening = [*opening_blocks(report), Section("Summary", [summarise_report(report)])]
    return write_markdown([Section("Report", [*opening, *sections_of(report), links])]) + "\n"


def opening_blocks(report: Report) -> list[Block]:
    """What was run, in three paragraphs."""
    method = report.method
    if method["tau"] == FIT:
        method = {**method, "tau": f"{FIT}, {report.tau:.3g}"}
    return [
        f"Preset `{report.preset}`, seed {report.seed}, objectives {', '.join(report.objectives)}. "
        + ", ".join(f"{key} `{value}`" for key, value in method.items())
        + f". World: {f'`{report.world[:16]}`' if report.world else 'real data, the truth is unknown'}.",
        f"Otherwise than the preset: {'; '.join(report.overrides) or 'nothing'}.",
        "Intervals are 95%, bootstrap over prompts.",
    ]


def sections_of(report: Report) -> list[Section]:
    """Every part that this run has."""
    return [
        Section("Targets", [verdict_table(report.verdicts)]),
        *([Section("Warnings", [Bullets(report.warnings)])] if report.warnings else []),
        Section("Reward models", reward_tables(report.rewards)),
        Section("Orchestrator", orchestrator_tables(report.orchestrator)),
        Section("Confidence", confidence_table(report.confidence)),
        Section("Stability", stability_table(report.stability)),
        *([Section("Policy", policy_tables(report.policy))] if report.policy else []),
        *([Section("Online rounds", round_tables(report.rounds))] if report.rounds else []),
        *([Section("Study", study_blocks(report.study))] if report.study else []),
        Section("Time and memory", [stage_table(report.stages)]),
    ]


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Each target, what was measured, and whether it is reached."""
    return Table(
        "Every target and what was measured",
        ["target", "measured", "wanted", "reached"],
        [[v.name, v.interval or _number(v.value), v.target, v.reached] for v in verdicts],
    )


def reward_tables(rewards: RewardReport) -> list[Block]:
    """Accuracies, correlations of margins, calibration."""
    accuracies = Table(
        "Share of pairs that each reward model orders as labelled",
        ["objective", "split", "pairs", "accuracy", "agrees with the true order"],
        [[a.objective, a.split, a.pairs, a.accuracy, a.true_order] for a in rewards.accuracies],
    )
    constants = rewards.calibration.constants
    calibration = Table(
        "Calibration of the rewards",
        [f"calibration `{rewards.calibration.method}`", "offset", "scale"],
        [[name, f"{c.offset:.4f}", f"{c.scale:.4f}"] for name, c in constants.items()],
    )
    return [accuracies, correlation_table(rewards.correlations), calibration]


def orchestrator_tables(orchestrator: OrchestratorReport) -> list[Block]:
    """Predictors, the ceiling, weights by split and family."""
    predictors = Table(
        "Recommended weights beside simpler ones",
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
    ceilings = Table(
        "What an oracle explains, and the orchestrator's share of it",
        ["split", "ceiling (explained KL of the oracle)", "share of the ceiling"],
        [[c.split, c.oracle, c.share] for c in orchestrator.ceilings],
    )
    weights = Table(
        "Recommended weights by kind of prompt",
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
    return [predictors, *([ceilings] if orchestrator.ceilings else []), weights]


def confidence_table(confidence: ConfidenceReport) -> list[Block]:
    """Each kind of unlike prompts against held-out ones, and how to read it."""
    held_out = [
        [h.split, h.prompts, _number(h.median), "", "", _number(h.kept), _number(h.shrunk)]
        for h in confidence.held_out
    ]
    unlike = [
        [
            u.kind,
            u.prompts,
            _number(u.median),
            u.confidence,
            u.certainty,
            _number(u.kept),
            "",
        ]
        for u in confidence.unlike
    ]
    header = ["prompts", "number", "median confidence", "its AUROC", "AUROC of certainty", "mean g", "g < 1"]
    reading = (
        "Confidence: at even odds, the probability that a text so far from the training prompts is one of "
        "their kind and not foreign. It was fitted to other code and languages, and other draws of noise. "
        "AUROC: the chance that a held-out prompt scores above one of this kind; 0.5 tells nothing. Very "
        "long prompts are held-out ones in a row, of which no more is read than `max_tokens`. "
    ) + (
        "Weights are g f(x) + (1 - g) fallback: g should be 1 for most held-out prompts and low for the "
        "others."
        if confidence.mode == "shrink"
        else f"Confidence is `{confidence.mode}`: all prompts get f(x) itself."
    )
    return [Table("Prompts unlike the training data", header, [*held_out, *unlike]), reading]


def stability_table(stability: Sequence[Stability]) -> list[Block]:
    """Each rewording beside unrelated prompts, and how to read it."""
    reading = (
        "Distance: total variation between the weights of a prompt and of its rewording, for prompts that it "
        "changes. Good is far below that of unrelated prompts; where that is small too, weights hardly vary "
        "at all. 0: the encoder does not see the change (lower case, where it is uncased). Surface "
        "rewordings are a lower bar than true paraphrases; another phrasing, in generated worlds only, "
        "shares family and topic, not always the question."
    )
    rows = [[s.kind, s.distance.groups, s.distance, s.same_top, s.true_distance] for s in stability]
    header = ["rewording", "prompts", "distance", "largest weight stays", "distance, true weights"]
    return [Table("Weights of reworded prompts", header, rows), reading]


def stage_table(stages: Sequence[StageCost]) -> Table:
    """Seconds and peak memory."""
    rows = [[s.stage, f"{s.seconds:.1f}", f"{s.peak_memory_mib:.0f}"] for s in stages]
    return Table(
        "Time and memory of every stage",
        ["stage", "seconds", "peak memory, MiB"],
        [*rows, ["all", f"{sum(s.seconds for s in stages):.1f}", ""]],
    )


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _named(values: Mapping[str, float] | None) -> str:
    return "" if values is None else ", ".join(f"{name} {value:.2f}" for name, value in values.items())
