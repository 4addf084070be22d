"""A study as a part of the report. In: `Study`. Out: text and tables, each one function."""

from collections.abc import Mapping, Sequence

from preforch_training.statistics.bootstrap import Interval
from preforch_training.statistics.document import Block, Bullets, Section, Table, correlation_table
from preforch_training.study.alignment.tables import gap_blocks
from preforch_training.study.records import ChoiceResult, Study


def study_blocks(study: Study) -> list[Block]:
    """All tables with what one must know to read them."""
    return [
        f"{study.prompts} prompts, {study.pairs} overall pairs, {study.folds} folds by prompt, {study.seeds} "
        "seeds, predictions pooled over folds. Rewards, calibration, targets, heads and constants of a fold "
        "come from the other folds only. Accuracy: share of held-out pairs with f(x).(r+ - r-) > 0. Gain: "
        "accuracy minus that of the best constant, which was chosen for accuracy on the training side, on "
        "the same pairs. Intervals are over prompts; they do not hold how folds and training vary.",
        *([Bullets(study.warnings)] if study.warnings else []),
        *study_sections(study),
    ]


def study_sections(study: Study) -> list[Section]:
    """Every part that these data allow."""
    reward_models: list[Block] = [
        reward_table(study),
        correlation_table(study.correlations),
        curve_table(study),
        size_table(study),
        "Reward models are those of the first seed. Gain: of an orchestrator on the share with the rewards "
        "of all data.",
    ]
    ways: list[Block] = [
        *(predictor_table(study, number) for number in range(len(study.predictors))),
        f"Accuracy of `recommended` minus that of `paper`, paired: {study.over_paper}.",
    ]
    single: list[Block] = [
        "Weight on the objective that made the preferences; 0.95 is asked for. One seed.",
        single_table(study),
    ]
    what_if: list[Block] = [
        "Preferences drawn by sigma(4 w°(x).(r+ - r-)) from known weights (0.8 on one objective, which goes "
        "by category, or by the side of the first principal component of the prompt vectors where there are "
        "none). `mix` moves every reward towards the mean of all, until margins correlate. Last column: what "
        "the known weights themselves gain.",
        what_if_table(study),
    ]
    disagreeing: list[Block] = [
        "How often the chosen response of an overall pair has the higher reward; ids of the twenty pairs "
        "that disagree most, with the margin in calibrated rewards.",
        agreement_table(study),
    ]
    parts: dict[str, list[Block]] = {
        "Reward models on pairs they have not seen": reward_models,
        "Ways to weigh the objectives": ways,
        "Alternatives": alternatives(study),
        "Weights by category": [category_table(study)] if study.categories else [],
        "Whole categories held out": [alternatives_table([study.by_category])] if study.by_category else [],
        "Preferences from one objective alone": single,
        "When not to use it": what_if,
        "Alignment gap": gap_blocks(study.gap) if study.gap else [],
        "Judged on other data": [transfer_table(study)] if study.transfers else [],
        "Who disagrees": disagreeing,
    }
    return [Section(title, blocks) for title, blocks in parts.items() if blocks]


def reward_table(study: Study) -> Table:
    """Accuracy and calibration error."""
    return Table(
        "Accuracy and calibration error of every reward model",
        ["objective", "pairs", "accuracy", "calibration error"],
        [[r.objective, r.pairs, r.accuracy, f"{r.error:.3f}"] for r in study.rewards],
    )


def curve_table(study: Study) -> Table:
    """Calibration curves: predicted -> observed, tenths of the pairs from doubtful to sure."""
    return Table(
        "Calibration curves",
        ["objective", "win probability predicted -> observed, by tenths of the pairs"],
        [
            [r.objective, ", ".join(f"{p.predicted:.2f} -> {p.observed:.2f}" for p in r.curve)]
            for r in study.rewards
        ],
    )


def size_table(study: Study) -> Table:
    """What less data gives: pair accuracies and the gain of the recommended choice."""
    names = list(study.correlations)
    return Table(
        "Fitted on a share of the training prompts",
        ["share", *names, "gain"],
        [[f"{point.share:g}", *(point.rewards[name] for name in names), point.gain] for point in study.sizes],
    )


def predictor_table(study: Study, number: int) -> Table:
    """The orchestrator beside everything simpler, for the choice of one preset (0: recommended)."""
    entry = study.predictors[number]
    label = "recommended" if entry.choice == study.recommended else "paper"
    return Table(
        f"Under the choice `{label}`: {entry.choice}",
        ["weights", "accuracy", "gain", "explained KL"],
        [[row.name, row.accuracy, row.gain, row.explained_kl] for row in entry.rows],
    )


def alternatives(study: Study) -> list[Block]:
    """All choices, those that these data do not allow, and the upper bound of their separation."""
    limit = [] if study.limit is None else [study.limit]
    return [
        "The log-likelihood is that of the labels under sigma(s f(x).(r+ - r-)), with one learned s.",
        alternatives_table(study.table),
        *unfitted_lines(study),
        *(f"AUROC of a supervised classifier on the same vectors: {interval}." for interval in limit),
    ]


def alternatives_table(results: Sequence[ChoiceResult]) -> Table:
    """Every choice, the most likely first."""
    ordered = sorted(results, key=lambda result: -result.log_likelihood)
    return Table(
        "Choices of method, the most likely first",
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


def category_table(study: Study) -> Table:
    """Mean weights by category."""
    return Table(
        "Mean weights by category",
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


def single_table(study: Study) -> Table:
    """One row per choice, one column per objective."""
    names = list(study.correlations)
    found = {(str(entry.choice), entry.objective): entry for entry in study.single}
    choices = list(dict.fromkeys(str(entry.choice) for entry in study.single))
    return Table(
        "Weight on the objective that made the preferences",
        ["choice", *names, "passes"],
        [
            [
                choice,
                *(found[choice, name].weight for name in names),
                all(found[choice, name].reached for name in names),
            ]
            for choice in choices
        ],
    )


def what_if_table(study: Study) -> Table:
    """What f and the known weights gain over the best constant, by how preferences were made."""
    return Table(
        "Gain by how preferences were made",
        [
            "known weights",
            "mix",
            "margins correlate",
            "gain of the orchestrator",
            "gain of the known weights",
        ],
        [[w.name, f"{w.value:g}", f"{w.correlation:.2f}", w.gain, w.oracle_gain] for w in study.what_ifs],
    )


def transfer_table(study: Study) -> Table:
    """What was fitted on this run, judged on other sources of pairs."""
    return Table(
        "Fitted on this run, judged on other sources",
        ["source", "pairs", "mean weights", "accuracy", "gain"],
        [
            [
                t.source,
                t.pairs,
                ", ".join(f"{name} {value:.2f}" for name, value in t.mean.items()),
                t.accuracy,
                t.gain,
            ]
            for t in study.transfers
        ],
    )


def agreement_table(study: Study) -> Table:
    """How often each reward agrees with the labels, and where it does least."""
    return Table(
        "Agreement of each reward with the labels",
        ["objective", "chosen has the higher reward", "worst pairs"],
        [
            [a.objective, a.share, ", ".join(f"{id_} ({m:.2f})" for id_, m in a.worst)]
            for a in study.agreements
        ],
    )


def _separation(found: Mapping[str, Interval] | None) -> str:
    return "" if found is None else ", ".join(f"{name} {interval}" for name, interval in found.items())
