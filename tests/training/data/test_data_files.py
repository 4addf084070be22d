"""Files and datasets as rows: every format, compressed or not, and what is said of one that cannot be
read."""

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from preforch_training.data.config import Source
from preforch_training.data.files import file_rows, rows_of
from preforch_training.data.rows.record import Unread

ROWS = [
    {"prompt": f"q{i}", "chosen": 'a "quoted", text\nof two lines', "rejected": f"ü{i}"} for i in range(3)
]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def parquet(rows: list[dict[str, Any]]) -> bytes:
    return parquet_of(pa.Table.from_pylist(rows))


def parquet_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def json_list(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=2).encode()


WRITERS = {"jsonl": jsonl, "json": json_list, "csv": csv, "parquet": parquet}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("form", WRITERS)
def test_a_file_of_any_form_gives_its_rows_with_their_places(
    tmp_path: Path, form: str, compression: str
) -> None:
    path = tmp_path / f"rows.{form}{compression}"
    path.write_bytes(COMPRESSIONS[compression](WRITERS[form](ROWS)))
    found = list(file_rows(path))
    assert [row for _, row in found] == ROWS
    places = {"jsonl": [1, 2, 3], "json": [0, 1, 2], "csv": [2, 4, 6], "parquet": [0, 1, 2]}
    assert [where for where, _ in found] == [f"{path}:{place}" for place in places[form]]


def test_json_may_hold_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    for name in ("rows.json", "rows.jsonl"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + jsonl(ROWS))
        assert [row for _, row in file_rows(tmp_path / name)] == ROWS
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbf" + csv(ROWS))
    assert [row for _, row in file_rows(tmp_path / "rows.csv")] == ROWS


def test_a_file_that_zstd_itself_wrote_is_read(tmp_path: Path) -> None:
    plain = tmp_path / "rows.jsonl"
    plain.write_bytes(jsonl(ROWS * 100_000))
    subprocess.run(["gzip", "-k", plain], check=True)
    assert sum(1 for _ in file_rows(tmp_path / "rows.jsonl.gz")) == 300_000


def test_lines_of_a_table_that_do_not_fit_come_out_as_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n1,2\n1\n1,2,3\n\n"open\xff",2\n')
    assert [row for _, row in file_rows(path)] == [
        {"a": "1", "b": "2"},
        Unread("there must be 2 values, one for each column", "1"),
        Unread("there must be 2 values, one for each column", "3"),
        {"a": "open\udcff", "b": "2"},
    ]


def test_an_open_quote_which_swallows_the_rest_is_an_error_and_another_fault_is_its_row_s(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows.csv").write_bytes(b'a,b\n"x"y,2\n1,2\n3,"4\n5,6\n')
    rows = file_rows(tmp_path / "rows.csv")
    assert next(rows)[1] == Unread("this is not CSV", "',' expected after '\"'")
    assert next(rows)[1] == {"a": "1", "b": "2"}
    with pytest.raises(ValueError, match=r"rows\.csv:4: a quote is opened here or before and never closed"):
        next(rows)


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(jsonl(ROWS[:1]) + b"\n \r\n" + jsonl(ROWS[1:]) + b"\n")
    assert [where.rpartition(":")[2] for where, _ in file_rows(tmp_path / "rows.jsonl")] == ["1", "4", "5"]


def test_a_dataset_with_a_script_is_named(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "web.py").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"dataset web\[train\] cannot be read: "):
        list(rows_of(Source(dataset="web"), tmp_path))


def test_what_is_no_json_comes_out_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"[" * 100_000 + b"\n\xff\n")
    found = [row for _, row in file_rows(path)]
    assert found[0] == {"a": 1}
    assert [row[:1] for row in found[1:]] == ["[", "\ufffd"]


TWICE = parquet_of(pa.table([[1], [2]], names=["a", "a"]))
BROKEN = {
    "rows.json": (b'[{"a": 1}, ', r"rows\.json: neither a JSON list nor JSON Lines"),
    "rows.parquet": (b"PAR1 nothing", r"rows\.parquet: cannot be read"),
    "rows.jsonl.gz": (b"not compressed", r"rows\.jsonl\.gz: cannot be read"),
    "cut.jsonl.gz": (gzip.compress(jsonl(ROWS))[:-20], r"cut\.jsonl\.gz: cannot be read"),
    "rows.parquet.zst": (b"not compressed", r"rows\.parquet\.zst: cannot be read"),
    "rows.csv": (b"a,a\n1,2\n", r"rows\.csv:1: two columns have one name"),
    "semicolons.csv": (
        b"a;b\n1;2\n",
        r"semicolons\.csv:1: one column 'a;b'; values must be separated by commas",
    ),
    "header.csv": (b'"a"b,c\n1,2\n', r"header\.csv: cannot be read"),
    "object.json": (b'{\n "data": []\n}', r"object\.json: one JSON object; a list of objects is read"),
    "twice.parquet": (TWICE, r"twice\.parquet: two columns have one name"),
    "rows.xlsx": (b"", r"rows\.xlsx: allowed are files named \.jsonl, \.json, \.csv, \.parquet"),
    "rows": (b"", r"rows: allowed are files named \.jsonl"),
}


NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 3, [None, pa.py_buffer(np.array([0, 1, 2, 3], dtype=np.int32)), pa.py_buffer(b"a\xffb")]
)


@pytest.mark.parametrize(
    "column", [NOT_UTF8, pa.array([0, 2**60, 1], pa.timestamp("us"))], ids=["text", "date"]
)
def test_a_row_of_parquet_that_cannot_be_read_is_one_bad_row(tmp_path: Path, column: pa.Array) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet_of(pa.table({"a": column, "number": [0, 1, 2]})))
    found = list(file_rows(path))
    assert [where.rpartition(":")[2] for where, _ in found] == ["0", "1", "2"]
    rows = [row for _, row in found]
    assert isinstance(rows[1], Unread)
    assert rows[1].reason == "a value cannot be read"
    assert [rows[0]["number"], rows[2]["number"]] == [0, 2]
    assert {"a": "a", "number": 0} in rows or column is not NOT_UTF8


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(file_rows(tmp_path / name))


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("none.jsonl", "folder.jsonl"):
        with pytest.raises(ValueError, match=rf"{name}: no such file"):
            list(file_rows(tmp_path / name))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_may_be_a_folder_under_root_with_a_folder_inside(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "set" / "part").mkdir(parents=True)
    (tmp_path / "set" / "part" / "train.jsonl").write_bytes(jsonl(ROWS))
    (tmp_path / "set" / "train.jsonl").write_bytes(jsonl(ROWS[:1]))
    source = Source(dataset="set", data_dir="part", streaming=streaming)
    found = list(rows_of(source, tmp_path))
    assert [row for _, row in found] == ROWS
    assert found[2][0] == "set[train]:2"


def test_a_dataset_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for content in (None, b'{"a": 1}\n{"a": \n'):
        if content is not None:
            (tmp_path / "set" / "train.jsonl").write_bytes(content)
        with pytest.raises(ValueError, match=r"dataset set\[train\] cannot be read"):
            list(rows_of(Source(dataset="set"), tmp_path))
