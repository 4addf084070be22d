"""A document as HTML. In: blocks of `statistics.document`. Out: markup in which every text is escaped.

A table is a plain HTML table: it can be read, searched, copied and printed without any script.
"""

from collections.abc import Iterable, Sequence
from math import isfinite

from markupsafe import Markup

from preforch_training.statistics.bootstrap import Interval
from preforch_training.statistics.document import Block, Bullets, Section, Table


def write_html(blocks: Sequence[Block], level: int, place: str) -> Markup:
    """Blocks in order; headings of their sections are of this level. `place` begins the ids in them."""
    return _joined(_written(block, level, f"{place}-{number}") for number, block in enumerate(blocks, 1))


def _written(block: Block, level: int, place: str) -> Markup:
    if isinstance(block, Section):
        heading = Markup("<h{0}>{1}</h{0}>").format(level, block.title)
        inner = write_html(block.blocks, level + 1, place)
        return Markup('<section id="{}">{}{}</section>\n').format(place, heading, inner)
    if isinstance(block, Bullets):
        items = _joined(Markup("<li>{}</li>\n").format(_text(item)) for item in block.items)
        return Markup("<ul>\n{}</ul>\n").format(items)
    if isinstance(block, Table):
        return _table(block, place)
    return Markup("<p>{}</p>\n").format(_text(block))


def _table(table: Table, place: str) -> Markup:
    header = _joined(Markup('<th scope="col">{}</th>').format(_text(column)) for column in table.columns)
    rows = _joined(Markup("<tr>{}</tr>\n").format(_joined(map(_cell, row))) for row in table.rows)
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="{0}">\n'
        '<table>\n<caption id="{0}">{1}</caption>\n'
        "<thead><tr>{2}</tr></thead>\n<tbody>\n{3}</tbody>\n</table>\n</div>\n"
    ).format(place, _text(table.caption), header, rows)


def _cell(cell: object) -> Markup:
    """A number carries its whole value to sort by, an interval the number of prompts that it is over."""
    value = sort_value(cell)
    number = "" if value is None else Markup(' class="number" data-value="{!r}"').format(value)
    prompts = Markup(' title="{} prompts"').format(cell.groups) if isinstance(cell, Interval) else ""
    return Markup("<td{}{}>{}</td>").format(number, prompts, _shown(cell))


def sort_value(cell: object) -> float | None:
    """The number that a cell is sorted by; None: by its text."""
    if isinstance(cell, Interval):
        return cell.value
    if isinstance(cell, bool) or cell is None:
        return None
    try:
        number = float(str(cell))
    except ValueError:
        return None
    # Something may be named "nan".
    return number if isfinite(number) else None


def _shown(cell: object) -> Markup:
    if isinstance(cell, bool):
        return Markup("yes") if cell else Markup("<strong>no</strong>")
    return Markup() if cell is None else _text(str(cell))


def _text(text: str) -> Markup:
    """Escaped, with `code` between backticks."""
    parts = (
        Markup("<code>{}</code>").format(part) if number % 2 else Markup.escape(part)
        for number, part in enumerate(text.split("`"))
    )
    return _joined(parts)


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup().join(parts)
