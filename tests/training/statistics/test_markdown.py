"""Markdown tables."""

from preforch_training.statistics.markdown import correlation_table, table


def test_cells_are_written_as_text_and_none_is_empty() -> None:
    assert table(["a", "b"], [[1, None], ["x", 0.5]]) == "| a | b |\n| --- | --- |\n| 1 |  |\n| x | 0.5 |"


def test_correlations_have_a_row_and_a_column_for_each_objective() -> None:
    lines = correlation_table({"a": {"a": 1.0, "b": -0.126}, "b": {"a": -0.126, "b": 1.0}}).splitlines()
    assert lines[0] == "| margins correlate | a | b |"
    assert lines[2:] == ["| a | 1.00 | -0.13 |", "| b | -0.13 | 1.00 |"]
