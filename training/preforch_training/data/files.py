"""Rows of files and datasets, one after the other, with the place of each for messages.

In:  JSON Lines, JSON, CSV or Parquet by path, as they are or compressed; datasets of a hub, or a folder.
Out: (place, row), row a plain dict. What is not one comes out as a text or as `Unread`, so that it is
     reported like any other bad row; a file that cannot be read at all is a ValueError that names it. Lines
     count from 1, rows of a JSON list, of Parquet and of datasets from 0.
"""

import csv
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetsError

from preforch_training.data.config import Source
from preforch_training.data.rows.record import Unread

Rows = Iterator[tuple[str, Any]]
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
BATCH_ROWS = 1000
"""Rows of a Parquet file that are in memory at a time."""


def rows_of(source: Source, root: Path) -> Rows:
    """(place, row) of a source. Raises ValueError for a file or dataset that cannot be read."""
    return dataset_rows(source, root) if source.path is None else file_rows(root / source.path)


def file_rows(path: Path) -> Rows:
    """(file:line, row) of one file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSED.get(suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED else "")
    read = READERS.get(suffixes[-1] if suffixes else "")
    if read is None:
        raise ValueError(
            f"{path}: allowed are files named {', '.join(READERS)}, and these with {', '.join(COMPRESSED)}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with _opened(path, compression) as file:
            yield from read(file, str(path))
    except (OSError, EOFError, UnicodeError, csv.Error, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error


@contextmanager
def _opened(path: Path, compression: str | None) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if compression is None:
            yield file
            return
        with pa.CompressedInputStream(pa.PythonFile(file), compression) as stream:
            yield io.BufferedReader(_Raw(stream), 1 << 20)


class _Raw(io.RawIOBase):
    """Arrow's stream as Python's: Arrow's own has no lines."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._stream.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)


def jsonl_rows(file: BinaryIO, name: str) -> Rows:
    """A JSON value a line. A byte-order mark at the beginning is left out."""
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = line.rstrip(b"\n").decode(errors="replace")
        yield f"{name}:{number}", row


def json_rows(file: BinaryIO, name: str) -> Rows:
    """A list of objects, or JSON Lines under another name."""
    beginning = file.read(1 << 12)
    rest = io.BufferedReader(_Joined(beginning, file))
    if not beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from _lines_or_object(rest, name)
        return
    try:
        rows = json.loads(rest.read())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: neither a JSON list nor JSON Lines: {error}") from error
    for number, row in enumerate(rows):
        yield f"{name}:{number}", row


def _lines_or_object(file: BinaryIO, name: str) -> Rows:
    """JSON Lines. Raises ValueError where the first line is the beginning of one object over many."""
    rows = jsonl_rows(file, name)
    for number, (place, row) in enumerate(rows):
        if not number and isinstance(row, str) and row.strip() == "{":
            raise ValueError(f"{name}: one JSON object; a list of objects is read, or JSON Lines")
        yield place, row


class _Joined(io.RawIOBase):
    """What was read of a file already, and the rest of it."""

    def __init__(self, beginning: bytes, file: BinaryIO) -> None:
        self._beginning, self._file = beginning, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._beginning[: len(buffer)] or self._file.read(len(buffer))
        self._beginning = self._beginning[len(buffer) :]
        buffer[: len(read)] = read
        return len(read)


def csv_rows(file: BinaryIO, name: str) -> Rows:
    """Rows under a line of column names; every value is a text."""
    csv.field_size_limit(sys.maxsize)
    # What is not UTF-8 becomes half characters, which no text may have.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _table_rows(csv.reader(text, strict=True), name)
    finally:
        text.detach()


def _table_rows(lines: Any, name: str) -> Rows:
    columns: list[str] = next(lines, [])
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        raise ValueError(f"{name}:1: one column {columns[0]!r}; values must be separated by commas")
    if len(set(columns)) < len(columns):
        raise ValueError(f"{name}:1: two columns have one name: {columns}")
    while True:
        place = f"{name}:{lines.line_num + 1}"
        try:
            values = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                # All that follows is in the value of an open quote, and not read.
                raise ValueError(f"{place}: a quote is opened here or before and never closed") from error
            yield place, Unread("this is not CSV", str(error))
            continue
        if len(values) == len(columns):
            yield place, dict(zip(columns, values, strict=True))
        elif values:
            yield place, Unread(f"there must be {len(columns)} values, one for each column", f"{len(values)}")


def parquet_rows(file: BinaryIO, name: str) -> Rows:
    """Rows of a table, some of them in memory at a time."""
    if not file.seekable():
        # The table of contents is at the end.
        with tempfile.TemporaryFile() as whole:
            shutil.copyfileobj(file, whole)
            yield from parquet_rows(whole, name)
        return
    # Buffered ahead, all that was read would stay in memory.
    number, table = 0, pq.ParquetFile(file, pre_buffer=False)
    columns = table.schema_arrow.names
    if len(set(columns)) < len(columns):
        raise ValueError(f"{name}: two columns have one name: {columns}")
    for batch in table.iter_batches(batch_size=BATCH_ROWS):
        for row in _rows_of_batch(batch):
            yield f"{name}:{number}", row
            number += 1


def _rows_of_batch(batch: pa.RecordBatch) -> list[Any]:
    """Rows as Python's objects; `Unread` for one that holds what Python has no room for."""
    try:
        return list(batch.to_pylist())
    # Dates of other ages, texts that are not UTF-8.
    except (ValueError, OverflowError) as error:
        if len(batch) == 1:
            return [Unread("a value cannot be read", str(error))]
        return [row for i in range(len(batch)) for row in _rows_of_batch(batch.slice(i, 1))]


LOADING = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    ImportError,
    ArithmeticError,
    DatasetsError,
    pa.ArrowException,
)
READERS = {".jsonl": jsonl_rows, ".json": json_rows, ".csv": csv_rows, ".parquet": parquet_rows}


def dataset_rows(source: Source, root: Path) -> Rows:
    """(dataset:row, row) of a dataset on the hub, or of a local folder in its format."""
    assert source.dataset is not None
    folder = root / source.dataset
    place = f"{source.dataset}[{source.dataset_split}]"
    try:
        rows = load_dataset(
            str(folder) if folder.is_dir() else source.dataset,
            source.name,
            data_dir=source.data_dir,
            split=source.dataset_split,
            revision=None if folder.is_dir() else source.revision,
            streaming=source.streaming,
        )
        assert isinstance(rows, Dataset | IterableDataset)
        for number, row in enumerate(rows):
            yield f"{place}:{number}", row
    # Whatever a loader meets in files of others: `datasets` has no one exception for it.
    except LOADING as error:
        raise ValueError(f"dataset {place} cannot be read: {error}") from error
