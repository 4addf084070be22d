"""The score table: read back as it was written."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from preforch_training.scores import table as scores_table
from preforch_training.scores.table import (
    each_score,
    read_calibration,
    read_scores,
    write_calibration,
    write_scores,
)
from scores_world import PLAIN, entry
from small_world import NAMES


def test_the_table_is_read_back_equal(tmp_path: Path) -> None:
    scored = [entry("1", "chosen", "Grüße\n", 1.5), entry("1", "rejected", "b", -1e-9)]
    write_scores(tmp_path, scored, NAMES)
    write_calibration(tmp_path, PLAIN)
    assert read_scores(tmp_path) == scored
    assert read_calibration(tmp_path) == PLAIN


def test_a_split_is_read_alone_in_its_order(tmp_path: Path) -> None:
    table = [
        entry(str(i), side, f"{side} {i}", 1.0).model_copy(update={"split": ("train", "validation")[i % 2]})
        for i in range(5)
        for side in ("chosen", "rejected")
    ]
    write_scores(tmp_path, table, NAMES)
    for split in ("train", "validation"):
        assert list(each_score(tmp_path, split=split)) == [score for score in table if score.split == split]
    assert list(each_score(tmp_path, split="test")) == []


def test_what_was_read_of_the_table_does_not_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores_table, "_ROWS_AT_ONCE", 100)
    noise = np.random.default_rng(0)
    write_scores(
        tmp_path, (entry(str(i), "chosen", noise.bytes(1000).hex(), 1.0) for i in range(2000)), NAMES
    )
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in each_score(tmp_path)]
    assert len(held) == 2000
    assert max(held) < (tmp_path / "scores.parquet").stat().st_size / 3
