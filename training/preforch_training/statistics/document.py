"""A report as data: every table is defined once, whatever it is written as.

In:  captions, column names, cells. Out: a `Section`, which `statistics.markdown` writes as Markdown and
     `report.page` as HTML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Table:
    """A cell is written by `str`; None is an empty one, True a "yes", False a "no" that stands out."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Bullets:
    """A list, each item one line of text."""

    items: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in order. A `str` is a paragraph; `backticks` mark code in it."""

    title: str
    blocks: "Sequence[Block]"


Block: TypeAlias = str | Table | Bullets | Section


def correlation_table(correlations: Mapping[str, Mapping[str, float]]) -> Table:
    """Correlations of margins, a row and a column for each objective."""
    return Table(
        "Correlations of the objectives' margins",
        ["margins correlate", *correlations],
        [[name, *(f"{value:.2f}" for value in found.values())] for name, found in correlations.items()],
    )
