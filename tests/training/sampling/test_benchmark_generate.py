"""The benchmark of drawing runs, and counts the tokens of both sides."""

import generate
import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_both_ways_draw_and_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    generate.main(["--rounds", "2", "--batch", "3", "--tokens", "4", "--sizes", "1 M"])
    row = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert row[0].startswith("| 1.0 M")
    assert all(float(cell.split(" ")[0]) > 0 for cell in row[1:])
