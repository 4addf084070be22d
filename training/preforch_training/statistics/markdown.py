"""Markdown tables for reports."""

from collections.abc import Iterable, Mapping, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose cells are written by `str`; None is an empty cell."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines
    )


def correlation_table(correlations: Mapping[str, Mapping[str, float]]) -> str:
    """Correlations of margins, a row and a column for each objective."""
    rows = [[name, *(f"{value:.2f}" for value in found.values())] for name, found in correlations.items()]
    return table(["margins correlate", *correlations], rows)
