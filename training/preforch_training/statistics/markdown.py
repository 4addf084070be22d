"""Markdown for reports: single tables, and documents of sections."""

from collections.abc import Iterable, Sequence

from preforch_training.statistics.document import Block, Bullets, Section, Table


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose cells are written by `str`; None is an empty cell."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines
    )


def write_markdown(blocks: Sequence[Block], level: int = 1) -> str:
    """A document, or a part of one; headings of its sections are of this level."""
    return "\n\n".join(_written(block, level) for block in blocks)


def _written(block: Block, level: int) -> str:
    if isinstance(block, Section):
        return write_markdown([f"{'#' * level} {block.title}", *block.blocks], level + 1)
    if isinstance(block, Bullets):
        return "\n".join(f"* {item}" for item in block.items)
    if isinstance(block, Table):
        rows = [[_cell(cell) for cell in row] for row in block.rows]
        return f"{block.caption}:\n\n{table(block.columns, rows)}"
    return block


def _cell(cell: object) -> object:
    return ("yes" if cell else "**no**") if isinstance(cell, bool) else cell
