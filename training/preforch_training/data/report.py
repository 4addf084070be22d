"""What the data are like: a count of everything that was read and left out, by source.

In:  counts that were made while reading. Out: `DataReport`, kept in the manifest, and the same as text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from preforch_models.objectives import Record

COMMONEST = 5
"""Reasons for skipping that are shown."""
MANY_SKIPPED = 0.1
"""Share of skipped rows above which the stage says so at its end."""


class Lengths(Record):
    """Characters of texts: the median, what 95% stay below, the longest."""

    median: int
    most: int
    longest: int


class Reason(Record):
    """Why rows were skipped, and how many."""

    reason: str
    rows: int


class SourceReport(Record):
    """What came of one source. rows = skipped rows + rows that were read."""

    source: str
    rows: int
    skipped: int
    reasons: tuple[Reason, ...]
    """The commonest reasons for skipping."""
    pairs: dict[str, int]
    """By objective."""
    left_out: dict[str, int]
    """What makes no pair: ties, missing ratings and the like."""
    duplicates: int
    """Pairs that had been there before, in this source or an earlier one."""
    contradictions: int
    """Pairs whose two responses are preferred the other way round as well."""
    prompt_lengths: Lengths | None
    response_lengths: Lengths | None


class Truncation(Record):
    """What a model reads of the texts: those that are longer than `max_tokens`, and the pairs whose two
    responses are the same up to there."""

    reader: str
    max_tokens: int
    texts: int
    """That were looked at."""
    truncated: int
    pairs: int
    identical: int


class DataReport(Record):
    """All sources, and what only all of them together show."""

    sources: tuple[SourceReport, ...]
    held_out_prompts: int
    leaks: int
    """Held-out prompts that begin like a training prompt but for case, punctuation and white space."""
    truncations: tuple[Truncation, ...]
    unknown_readers: dict[str, str]
    """Models whose tokenizer could not be had, and why."""


@dataclass
class SourceCounts:
    """What is counted while a source is read."""

    label: str
    rows: int = 0
    prompts: int = 0
    """Rows whose prompt was read."""
    skipped: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    prompt_lengths: Counter[int] = field(default_factory=Counter)
    response_lengths: Counter[int] = field(default_factory=Counter)

    def summary(self) -> str:
        """Rows, and what became of them."""
        parts = [f"{count} skipped: {reason}" for reason, count in self.skipped.most_common(COMMONEST)]
        parts += [f"{count} {what}" for what, count in self.left_out.most_common(COMMONEST) if count]
        return f"{self.rows} rows" + "".join(f"; {part}" for part in parts)

    def report(self, *, duplicates: int, contradictions: int) -> SourceReport:
        """As it is kept."""
        reasons = tuple(Reason(reason=reason, rows=n) for reason, n in self.skipped.most_common(COMMONEST))
        return SourceReport(
            source=self.label,
            rows=self.rows,
            skipped=self.skipped.total(),
            reasons=reasons,
            pairs=dict(sorted(self.pairs.items())),
            left_out={what: count for what, count in sorted(self.left_out.items()) if count},
            duplicates=duplicates,
            contradictions=contradictions,
            prompt_lengths=lengths_of(self.prompt_lengths),
            response_lengths=lengths_of(self.response_lengths),
        )


def lengths_of(counts: Counter[int]) -> Lengths | None:
    """Quantiles of the lengths that were counted; None without any."""
    if not counts:
        return None
    return Lengths(median=_quantile(counts, 0.5), most=_quantile(counts, 0.95), longest=max(counts))


def _quantile(counts: Counter[int], share: float) -> int:
    reached, wanted = 0, share * counts.total()
    for length in sorted(counts):
        reached += counts[length]
        if reached >= wanted:
            return length
    raise AssertionError("the counts reach their own total")


def report_lines(report: DataReport) -> list[str]:
    """For people, a line a fact."""
    lines = []
    for source in report.sources:
        pairs = ", ".join(f"{name} {count}" for name, count in source.pairs.items()) or "none"
        lines.append(f"{source.source}: {source.rows} rows, {source.skipped} skipped; pairs: {pairs}")
        lines += [f"  skipped {entry.rows}: {entry.reason}" for entry in source.reasons]
        lines += [f"  left out {count}: {what}" for what, count in source.left_out.items()]
        if source.duplicates or source.contradictions:
            lines.append(
                f"  {source.duplicates} pairs were there before, {source.contradictions} are there the other "
                "way round as well"
            )
        lines += [
            f"  characters of {what}: median {found.median}, 95% up to {found.most}, longest {found.longest}"
            for what, found in (("prompts", source.prompt_lengths), ("responses", source.response_lengths))
            if found is not None
        ]
    if report.leaks:
        lines.append(
            f"{report.leaks} of {report.held_out_prompts} held-out prompts begin like a training prompt but "
            "for case, punctuation and white space"
        )
    for found in report.truncations:
        lines.append(
            f"{found.reader}: {found.truncated} of {found.texts} texts are longer than {found.max_tokens} "
            f"tokens; {found.identical} of {found.pairs} pairs are two equal responses up to there"
        )
    lines += [
        f"{name}: what it cuts is not known: {reason}" for name, reason in report.unknown_readers.items()
    ]
    return lines


def warnings_of(sources: Sequence[SourceReport]) -> list[str]:
    """One line for each source of which more than a tenth was skipped."""
    return [
        f"warning: {source.skipped} of {source.rows} rows of {source.source} were skipped "
        f"({source.skipped / source.rows:.0%})"
        for source in sources
        if source.skipped > MANY_SKIPPED * source.rows
    ]
