"""A study as Markdown. In: `Study`. Out: text; every table is one function."""

from collections.abc import Mapping, Sequence

from preforch_training.statistics.bootstrap import Interval
from preforch_training.statistics.markdown import correlation_table, table
from preforch_training.study.alignment.tables import render_gap
from preforch_training.study.records import ChoiceResult, Study


def render_study(study: Study) -> str:
    """All tables with what one must know to read them."""
    parts = [
        f"{study.prompts} prompts, {study.pairs} overall pairs, {study.folds} folds by prompt, {study.seeds} "
        "seeds, predictions pooled over folds. Rewards, calibration, targets, heads and constants of a fold "
        "come from the other folds only. Accuracy: share of held-out pairs with f(x).(r+ - r-) > 0. Gain: "
        "accuracy minus that of the best constant, which was chosen for accuracy on the training side, on "
        "the same pairs. Intervals are over prompts; they do not hold how folds and training vary.",
        *(["\n".join(f"* {warning}" for warning in study.warnings)] if study.warnings else []),
        "### Reward models on pairs they have not seen",
        reward_table(study),
        curve_table(study),
        "Fitted on a share of the training prompts (reward models: first seed; gain: an orchestrator on the "
        "share with the rewards of all data):",
        size_table(study),
        "### Ways to weigh the objectives",
        *(predictor_table(study, number) for number in range(len(study.predictors))),
        f"Accuracy of `recommended` minus that of `paper`, paired: {study.over_paper}.",
        "### Alternatives",
        "The log-likelihood is that of the labels under sigma(s f(x).(r+ - r-)), with one learned s.",
        alternatives_table(study.table),
        *unfitted_lines(study),
        *_if(study.limit, "AUROC of a supervised classifier on the same vectors: {}."),
        *(["### Weights by category", category_table(study)] if study.categories else []),
        *(
            ["### Whole categories held out", alternatives_table([study.by_category])]
            if study.by_category
            else []
        ),
        "### Preferences from one objective alone",
        "Weight on the objective that made the preferences; 0.95 is asked for. One seed.",
        single_table(study),
        "### When not to use it",
        "Preferences drawn by sigma(4 w°(x).(r+ - r-)) from known weights (0.8 on one objective, which goes "
        "by category, or by the side of the first principal component of the prompt vectors where there are "
        "none). `mix` moves every reward towards the mean of all, until margins correlate. Last column: what "
        "the known weights themselves gain.",
        what_if_table(study),
        *(["### Alignment gap", render_gap(study.gap)] if study.gap else []),
        *(["### Judged on other data", transfer_table(study)] if study.transfers else []),
        "### Who disagrees",
        "How often the chosen response of an overall pair has the higher reward; ids of the twenty pairs "
        "that disagree most, with the margin in calibrated rewards.",
        agreement_table(study),
    ]
    return "\n\n".join(parts)


def reward_table(study: Study) -> str:
    """Accuracy and calibration error; correlations of the margins over overall pairs."""
    quality = table(
        ["objective", "pairs", "accuracy", "calibration error"],
        [[r.objective, r.pairs, r.accuracy, f"{r.error:.3f}"] for r in study.rewards],
    )
    return f"{quality}\n\n{correlation_table(study.correlations)}"


def curve_table(study: Study) -> str:
    """Calibration curves: predicted -> observed, tenths of the pairs from doubtful to sure."""
    return table(
        ["objective", "win probability predicted -> observed, by tenths of the pairs"],
        [
            [r.objective, ", ".join(f"{p.predicted:.2f} -> {p.observed:.2f}" for p in r.curve)]
            for r in study.rewards
        ],
    )


def size_table(study: Study) -> str:
    """What less data gives: pair accuracies and the gain of the recommended choice."""
    names = list(study.correlations)
    return table(
        ["share", *names, "gain"],
        [[f"{point.share:g}", *(point.rewards[name] for name in names), point.gain] for point in study.sizes],
    )


def predictor_table(study: Study, number: int) -> str:
    """The orchestrator beside everything simpler, for the choice of one preset (0: recommended)."""
    entry = study.predictors[number]
    rows = table(
        ["weights", "accuracy", "gain", "explained KL"],
        [[row.name, row.accuracy, row.gain, row.explained_kl] for row in entry.rows],
    )
    label = "recommended" if entry.choice == study.recommended else "paper"
    return f"`{label}`: {entry.choice}\n\n{rows}"


def alternatives_table(results: Sequence[ChoiceResult]) -> str:
    """Every choice, the most likely first."""
    ordered = sorted(results, key=lambda result: -result.log_likelihood)
    return table(
        ["choice", "accuracy", "gain", "log-likelihood (s)", "explained KL", "entropy", "AUROC of weights"],
        [
            [
                r.choice,
                r.accuracy,
                r.gain,
                f"{r.log_likelihood:.4f} ({r.scale:.2g})",
                r.explained_kl,
                f"{r.entropy:.3f}",
                _separation(r.separation),
            ]
            for r in ordered
        ],
    )


def unfitted_lines(study: Study) -> list[str]:
    """One line for each reason, with the choices that it rules out."""
    choices: dict[str, list[str]] = {}
    for choice, reason in study.unfitted.items():
        choices.setdefault(reason, []).append(choice)
    return [
        f"Cannot be fitted here, because {reason}: {'; '.join(found)}." for reason, found in choices.items()
    ]


def category_table(study: Study) -> str:
    """Mean weights by category."""
    return table(
        ["category", "prompts", "mean weights (spread)"],
        [
            [
                c.category,
                c.prompts,
                ", ".join(f"{name} {c.mean[name]:.2f} ({c.spread[name]:.2f})" for name in c.mean),
            ]
            for c in study.categories
        ],
    )


def single_table(study: Study) -> str:
    """One row per choice, one column per objective."""
    names = list(study.correlations)
    found = {(str(entry.choice), entry.objective): entry for entry in study.single}
    choices = list(dict.fromkeys(str(entry.choice) for entry in study.single))
    return table(
        ["choice", *names, "passes"],
        [
            [
                choice,
                *(found[choice, name].weight for name in names),
                "yes" if all(found[choice, name].reached for name in names) else "**no**",
            ]
            for choice in choices
        ],
    )


def what_if_table(study: Study) -> str:
    """What f and the known weights gain over the best constant, by how preferences were made."""
    return table(
        [
            "known weights",
            "mix",
            "margins correlate",
            "gain of the orchestrator",
            "gain of the known weights",
        ],
        [[w.name, f"{w.value:g}", f"{w.correlation:.2f}", w.gain, w.oracle_gain] for w in study.what_ifs],
    )


def transfer_table(study: Study) -> str:
    """What was fitted on this run, judged on other sources of pairs."""
    return table(
        ["source", "pairs", "mean weights", "accuracy", "gain", "gain, shrunk where unfamiliar"],
        [
            [
                t.source,
                t.pairs,
                ", ".join(f"{name} {value:.2f}" for name, value in t.mean.items()),
                t.accuracy,
                t.gain,
                t.shrunk_gain,
            ]
            for t in study.transfers
        ],
    )


def agreement_table(study: Study) -> str:
    """How often each reward agrees with the labels, and where it does least."""
    return table(
        ["objective", "chosen has the higher reward", "worst pairs"],
        [
            [a.objective, a.share, ", ".join(f"{id_} ({m:.2f})" for id_, m in a.worst)]
            for a in study.agreements
        ],
    )


def _separation(found: Mapping[str, Interval] | None) -> str:
    return "" if found is None else ", ".join(f"{name} {interval}" for name, interval in found.items())


def _if(interval: Interval | None, text: str) -> list[str]:
    return [] if interval is None else [text.format(interval)]
