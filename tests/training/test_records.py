"""One record in a JSON file of its own: what is written reads back, and what cannot be read is named."""

from pathlib import Path

import pytest
from preforch_models.manifest import ArtifactError
from preforch_training.records import read_record, write_record
from preforch_training.statistics.bootstrap import Interval

FOUND = Interval(value=0.5, low=0.25, high=0.75, groups=7)


def test_a_record_reads_back_and_leaves_no_other_file(tmp_path: Path) -> None:
    write_record(tmp_path / "interval.json", FOUND)
    assert read_record(tmp_path / "interval.json", Interval) == FOUND
    assert [path.name for path in tmp_path.iterdir()] == ["interval.json"]
    assert (tmp_path / "interval.json").read_text(encoding="utf-8").endswith("}\n")


def test_a_file_that_is_not_the_record_is_named_with_the_field(tmp_path: Path) -> None:
    path = tmp_path / "interval.json"
    path.write_text('{"value": 1, "low": 0, "high": "much", "groups": 3}', encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"interval\.json: .*high"):
        read_record(path, Interval)
    with pytest.raises(ArtifactError, match=r"none\.json: cannot be read"):
        read_record(tmp_path / "none.json", Interval)
