"""Markdown tables and documents."""

from preforch_training.statistics.document import Bullets, Section, Table, correlation_table
from preforch_training.statistics.markdown import table, write_markdown


def test_cells_are_written_as_text_and_none_is_empty() -> None:
    assert table(["a", "b"], [[1, None], ["x", 0.5]]) == "| a | b |\n| --- | --- |\n| 1 |  |\n| x | 0.5 |"


def test_correlations_have_a_row_and_a_column_for_each_objective() -> None:
    found = correlation_table({"a": {"a": 1.0, "b": -0.126}, "b": {"a": -0.126, "b": 1.0}})
    assert found.columns == ["margins correlate", "a", "b"]
    assert found.rows == [["a", "1.00", "-0.13"], ["b", "-0.13", "1.00"]]


def test_a_document_is_written_section_by_section() -> None:
    inner = Section("Inner", [Table("Caption", ["a"], [[True], [False], [None]]), Bullets(["x", "y"])])
    text = write_markdown([Section("Outer", ["First.", inner]), "Last."], 2)
    cells = "| a |\n| --- |\n| yes |\n| **no** |\n|  |"
    assert text == f"## Outer\n\nFirst.\n\n### Inner\n\nCaption:\n\n{cells}\n\n* x\n* y\n\nLast."
