"""The alignment gap as a part of the report. In: `GapReport`. Out: text and tables, each one function."""

from preforch_training.statistics.document import Block, Table
from preforch_training.statistics.predictors import CONSTANT, FITTED_CONSTANT, F
from preforch_training.study.records import GapFindings, GapReport


def gap_blocks(report: GapReport) -> list[Block]:
    """The spread first, and nothing more where w* barely varies."""
    constant = ", ".join(f"{name} {value:.2f}" for name, value in report.constant.items())
    edge = report.beta in (min(betas := [float(beta) for beta in report.likelihoods]), max(betas))
    parts: list[Block] = [
        f"{report.pools} pools with {report.responses} responses, {report.gold} of them gold (chosen in an "
        f"overall pair); {report.all_gold} prompts left out because all of theirs are gold. beta "
        f"{report.beta:g}, one for all, is the likeliest under the folds' best constants"
        f"{', at the edge of those tried' if edge else ''}; these are on average {constant}.",
        spread_table(report),
        "w* of a pool is fitted to its gold labels with a prior worth one gold response at the constant. "
        "Halves: correlation of the w* of two random halves of each pool, each less the mean w* that one "
        "preference for all prompts gives it; 0 is noise alone. Share: of the variance "
        "of w*, what noise does not explain.",
        report.verdict,
    ]
    if report.findings is not None:
        found = report.findings
        parts += [
            gap_rows(found),
            "Gap: beta KL(pi_w || pi_w*), in units of calibrated reward, lower is better; the difference is "
            "paired, below 0 beats the best constant. w* is fitted on the same pool that the gap is "
            "measured on, so it has no gap by construction and follows the pool's noise as well: every "
            "other gap holds that noise, a floor for whoever has not seen the pool's labels, and "
            f"differences are what to read. `{CONSTANT}` maximises the likelihood of the training folds' "
            f"gold labels, the very measure that w* is fitted by; `{F}` and `{FITTED_CONSTANT}` never see "
            "it: they are fitted to targets made of training pairs and rewards.",
            f"Checked on {found.checked} pairs of a pool and weights; largest violation of the identity "
            f"{found.check.identity:.1e}, of the lower bound {found.check.lower:.1e}, of the upper bound "
            f"{found.check.upper:.1e}.",
            curve_table(found),
            "Only the orchestrator's head is fitted on fewer prompts; rewards and calibration keep theirs. "
            "The last row is the table's.",
        ]
    return parts


def spread_table(report: GapReport) -> Table:
    """How much w* varies, a row for each seed."""
    names = list(report.constant)
    return Table(
        "How much w* varies",
        [
            "seed",
            *(f"w* of {name}: sd (range)" for name in names),
            "halves",
            "share",
            "prompts",
            "too small to halve",
        ],
        [
            [
                seed,
                *(
                    f"{sd:.3f} ({low:.2f} to {high:.2f})"
                    for sd, low, high in zip(s.sd, s.low, s.high, strict=True)
                ),
                s.halves,
                f"{s.share:.2f}",
                s.prompts,
                s.too_small,
            ]
            for seed, s in enumerate(report.spread)
        ],
    )


def gap_rows(found: GapFindings) -> Table:
    """Mean gap of each predictor, in units of calibrated reward."""
    return Table(
        "Alignment gap of every way to weigh the objectives",
        ["weights", "gap", "minus best constant"],
        [[row.name, row.gap, row.minus_constant] for row in found.table],
    )


def curve_table(found: GapFindings) -> Table:
    """Gap by number of training prompts."""
    return Table(
        "Alignment gap by number of training prompts",
        ["training prompts", "gap of the orchestrator"],
        [[p.prompts, p.gap] for p in found.curve],
    )
