"""The tables about policies. In: a `PolicyReport`. Out: blocks of the report; every table is one function."""

from collections.abc import Mapping, Sequence

from preforch_training.report.policies.records import (
    Control,
    CurvePoint,
    Difference,
    EqualWeights,
    Front,
    PolicyReport,
    Scale,
    SweepPoint,
    TextMeasures,
    Utility,
)
from preforch_training.statistics.document import Block, Table


def policy_tables(policy: PolicyReport) -> list[Block]:
    """As far as there are any: a policy that reads no weights has no control."""
    parts: list[Block] = [
        f"{policy.responses} responses drawn in {policy.sampling_seconds:.0f} s, "
        f"{policy.unfinished} cut at the token limit.",
    ]
    if policy.fixed:
        parts.append(
            f"Read no weights, and are judged by what they answer anyway: {', '.join(policy.fixed)}. "
            "There is nothing to control or to sweep in them."
        )
    if policy.control:
        parts.append(control_table(policy.control))
    if policy.constant:
        parts.append(f"Best constant, chosen on validation prompts: {_named(policy.constant)}.")
    if policy.utilities:
        parts.append(utility_table(policy.utilities))
    if policy.differences:
        parts.append(difference_table(policy.differences))
    if policy.equal_weights:
        parts.append(equal_weights_table(policy.equal_weights))
    if policy.fronts:
        parts += front_table(policy.fronts, policy.scales)
    if policy.reference:
        parts.append(
            f"KL from `{policy.reference}`, nats an answer: summed over the tokens of the drawn answers, "
            "between what both policies would say next, at temperature 1."
        )
    if policy.texts:
        parts.append(text_table(policy.texts))
    if policy.curves:
        parts.append(curve_table(policy.curves))
    if policy.sweep:
        parts.append(sweep_table(policy.sweep))
    return parts


def control_table(control: Sequence[Control]) -> Table:
    """Both rank correlations by objective."""
    return Table(
        "Control: does more weight bring more reward",
        ["policy", "split", "rewards", "objective", "Spearman, asked weight and mean reward", "Kendall"],
        [[c.policy, c.split, c.measure, c.objective, c.spearman, c.kendall] for c in control],
    )


def utility_table(utilities: Sequence[Utility]) -> Table:
    """E[w°.r] of every arm."""
    header = ["policy and weights", "split", "prompts", "utility"]
    rows = [[u.arm, u.split, u.utility.groups, u.utility] for u in utilities]
    return Table("Utility under the true weights", header, rows)


def difference_table(differences: Sequence[Difference]) -> Table:
    """Of two arms each."""
    header = ["difference in utility", "split", "prompts", "value"]
    rows = [[f"{d.first} - {d.second}", d.split, d.difference.groups, d.difference] for d in differences]
    return Table("Differences in utility, paired by prompt", header, rows)


def equal_weights_table(rows: Sequence[EqualWeights]) -> Table:
    """As the paper's Tables 1 to 4 have it."""
    return Table(
        "Rewards where all are asked with equal weights, all test prompts",
        ["policy", "rewards", *rows[0].rewards, "mean"],
        [[row.policy, row.measure, *row.rewards.values(), row.mean] for row in rows],
    )


def front_table(fronts: Sequence[Front], scales: Sequence[Scale]) -> list[Block]:
    """Indicators of every front, and what they are measured in."""
    boxes = "; ".join(
        f"{scale.measure}: {', '.join(f'{k} {scale.low[k]:.2f} to {scale.high[k]:.2f}' for k in scale.low)}"
        for scale in scales
    )
    reading = (
        "Of the points of the sweep below; a policy that reads no weights is one point. Hypervolume above "
        "the 5% quantile of the training responses' rewards, where the box up to their 95% quantile is 1 "
        f"({boxes}). Expected utility: of the best point under weights ~ Dirichlet(1). Epsilon: what the "
        "rewards lack at most to every point of all policies together."
    )
    table = Table(
        "Fronts: what a policy reaches under all weights",
        ["policy", "rewards", "points", "hypervolume", "expected utility", "epsilon"],
        [[f.policy, f.measure, f.points, f.hypervolume, f.expected_utility, f.epsilon] for f in fronts],
    )
    return [table, reading]


def curve_table(curves: Sequence[CurvePoint]) -> Table:
    """Rewards by samples and KL."""
    return Table(
        "Learning curves on test prompts: where what was learned rises and the truth does not, rewards are "
        "over-optimised",
        ["policy", "samples", "KL", *curves[0].rewards, "learned utility", "true utility"],
        [[c.policy, c.samples, c.kl, *c.rewards.values(), c.learned, c.utility] for c in curves],
    )


def text_table(texts: Sequence[TextMeasures]) -> Table:
    """Diversity, repetition and length of what every policy answers, and how far it went."""
    return Table(
        "Diversity, repetition and length of answers",
        ["answers of", "answers", "distinct", "distinct 3-grams", "repeated sentences", "words", "KL"],
        [
            [
                t.arm,
                t.responses,
                *(f"{value:.3g}" for value in (t.distinct, t.distinct_grams, t.repeated, t.words)),
                t.kl,
            ]
            for t in texts
        ],
    )


def sweep_table(sweep: Sequence[SweepPoint]) -> Table:
    """Mean rewards of every point of the grid."""
    return Table(
        "Pareto sweep: mean rewards under every vector of weights",
        ["policy", "rewards", "asked", "mean rewards", "KL", "words", "strictly dominated"],
        [
            [
                p.policy,
                p.measure,
                " / ".join(f"{value:.2f}" for value in p.weights.values()),
                ", ".join(f"{name} {reward}" for name, reward in p.rewards.items()),
                p.kl,
                f"{p.words:.1f}",
                "yes" if p.dominated else "",
            ]
            for p in sweep
        ],
    )


def _named(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())
