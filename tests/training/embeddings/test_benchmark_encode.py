"""The benchmark of encoding runs, compares equal vectors, and refuses what it cannot measure."""

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from small_world import questions

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "encode.py"


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    entry: Callable[[list[str]], None] = runpy.run_path(str(SCRIPT))["main"]
    return entry


@pytest.fixture
def options(encoder: Path) -> list[str]:
    return [
        "--encoder",
        str(encoder),
        "--max-tokens",
        "32",
        "--limit",
        "70",
        "--repeats",
        "2",
        "--threads",
        "1",
    ]


def test_a_file_is_measured_with_the_single_pass_first(
    main: Callable[[list[str]], None], options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"chosen": text}) + "\n" for text in [*questions(), *questions()]))
    main(["--texts", str(file), "--field", "chosen", *options])
    printed = capsys.readouterr().out
    assert "Texts: 70 distinct (texts.jsonl, field chosen)" in printed
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")][1:]
    assert rows[0][0] == "| **one pass, nothing cached**"
    for _, plain, ours, ratio in rows:
        middle, low, high = (float(number) for number in re.findall(r"[\d.]+", ratio))
        assert float(plain) >= 0 < float(ours)
        assert low <= middle <= high
    assert "(allowed 1e-04)" in printed


def test_without_a_file_texts_of_varied_length_are_made(
    main: Callable[[list[str]], None], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(options)
    assert "Texts: 70 distinct (demo world, strung together)" in capsys.readouterr().out


def test_a_line_without_the_field_is_named(
    main: Callable[[list[str]], None], options: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "joke"}\n{"prompt": "joke"}\n')
    with pytest.raises(
        ValueError, match=r"texts\.jsonl:2: field 'text' is None, it must be a string; see --field"
    ):
        main(["--texts", str(file), *options])


def test_one_round_has_no_interval(
    main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--repeats", "1"])
    assert "--repeats is 1; an interval needs at least 2" in capsys.readouterr().err
