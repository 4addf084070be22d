"""docs/data.md: every snippet reads rows of its data set's schema."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_sets import LEFT_OUT, NAMES, PAIRS, ROWS, SNIPPETS, local
from preforch_training.data.config import Config
from preforch_training.data.reading import read_sources
from preforch_training.data.writing import DataWriter
from preforch_training.records import PreferencePair, Prompt, by_id, read_records

Write = Callable[[Path, list[dict[str, Any]]], str]


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> str:
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    return "rows.jsonl"


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return "rows.parquet"


def test_at_least_twelve_data_sets_have_a_snippet_and_each_is_tested() -> None:
    assert len(SNIPPETS) >= 12
    assert set(SNIPPETS) == set(ROWS) == set(PAIRS)
    assert all(snippet["dataset"] == name for name, snippet in SNIPPETS.items())


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
@pytest.mark.parametrize("name", SNIPPETS)
def test_the_snippet_reads_rows_of_the_schema(name: str, write: Write, tmp_path: Path) -> None:
    source = local(name) | {"path": write(tmp_path, ROWS[name])}
    config = Config.model_validate({"source": "files", "root": tmp_path, "sources": [source]})
    with DataWriter(tmp_path, tmp_path / "index.sqlite", keep_rejected=False) as writer:
        (counts,) = read_sources(writer, config, NAMES, seed=1)
    prompts = by_id(read_records(tmp_path / "prompts.jsonl", Prompt))
    found = {
        (tuple((m.role, m.content) for m in prompts[p.prompt_id].messages), p.objective, p.chosen, p.rejected)
        for p in read_records(tmp_path / "pairs.jsonl", PreferencePair)
    }
    assert found == PAIRS[name]
    assert +counts.left_out == LEFT_OUT.get(name, {})
    assert prompts
