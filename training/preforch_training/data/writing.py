"""The artifact's files, written as rows come; what must be known of all rows lies in SQLite, not in memory.

In:  prompts, pairs and bad rows. Out: `prompts.jsonl`, `pairs.jsonl`, `rejected.jsonl`; counts, and what only
     all rows together show: duplicates, contradictions, prompts on both sides of the split.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from preforch_training.data.rows.ratings import Rated
from preforch_training.data.rows.record import RowPair
from preforch_training.data.splits import Placed, quoted

BATCH = 1000
"""Records that are put into SQLite at a time."""
_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; PRAGMA temp_store = FILE;
CREATE TABLE prompts(key INTEGER PRIMARY KEY, place INTEGER, id TEXT, split TEXT, plain INTEGER);
CREATE TABLE pairs(source INTEGER, prompt INTEGER, objective TEXT, chosen INTEGER, rejected INTEGER);
CREATE TABLE rated(prompt INTEGER, response TEXT, ratings TEXT);
"""
# How often a pair was there before, and whether its two are there the other way round as well.
_REPEATS = """
SELECT source, SUM(repeat > 1), SUM(ways > 1) FROM (
    SELECT source, ROW_NUMBER() OVER alike AS repeat,
    MAX(chosen > rejected) OVER same - MIN(chosen > rejected) OVER same + 1 AS ways FROM pairs
    WINDOW alike AS (PARTITION BY prompt, objective, chosen, rejected ORDER BY rowid),
    same AS (PARTITION BY prompt, objective, MIN(chosen, rejected), MAX(chosen, rejected))
) GROUP BY source
"""
_LEAKS = """
SELECT COUNT(*) FROM prompts
WHERE split != 'train' AND plain IN (SELECT plain FROM prompts WHERE split = 'train')
"""


class DataWriter:
    """Prompts by id, each written once; the first source that brings one names its category."""

    def __init__(self, folder: Path, index: Path, *, keep_rejected: bool) -> None:
        """`index`: a file for what SQLite holds, which is of no use afterwards."""
        index.unlink(missing_ok=True)
        self._index, self._files = index, ExitStack()
        self._folder = folder
        self._keep_rejected = keep_rejected
        self._new_prompts: dict[int, tuple[Placed, str]] = {}
        self._new_pairs: list[tuple[int, int, str, int, int]] = []
        self._places = 0
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._prompts, self._pairs = (self._open(name) for name in ("prompts.jsonl", "pairs.jsonl"))
        self._rejected = self._open("rejected.jsonl") if self._keep_rejected else None
        self._database = sqlite3.connect(self._index, isolation_level=None)
        self._files.callback(self._database.close)
        self._database.executescript(_TABLES)
        # One transaction for all: one for each insert takes several times as long.
        self._database.execute("BEGIN")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._store_prompts()
        finally:
            self._files.close()
            self._index.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            # A full disk, most likely, which is no fault of the database.
            raise OSError(f"{self._index}: {error}") from error

    def _open(self, name: str) -> TextIO:
        return self._files.enter_context((self._folder / name).open("w", encoding="utf-8"))

    def add_prompt(self, placed: Placed, *, category: str) -> None:
        """Write a prompt that is not there yet."""
        self._new_prompts.setdefault(hash(placed.id), (placed, category))
        if len(self._new_prompts) == BATCH:
            self._store_prompts()

    def add_pair(
        self, pair_id: str, prompt_id: str, pair: RowPair, *, split: str, source: str, number: int
    ) -> None:
        """Write a pair of source `number`, which is called `source`."""
        self.counts[f"pairs/{pair.objective}/{split}"] += 1
        # As `records.write_records` writes it.
        self._pairs.write(
            f'{{"id": {quoted(pair_id)}, "prompt_id": {quoted(prompt_id)}, '
            f'"objective": {quoted(pair.objective)}, "chosen": {quoted(pair.chosen)}, '
            f'"rejected": {quoted(pair.rejected)}, "split": "{split}", "source": {quoted(source)}}}\n'
        )
        row = (number, hash(prompt_id), pair.objective, hash(pair.chosen), hash(pair.rejected))
        self._new_pairs.append(row)
        if len(self._new_pairs) == BATCH:
            self._store_pairs()

    def reject(self, where: str, reason: str, row: Any) -> None:
        """Keep a bad row aside."""
        self.counts["rejected"] += 1
        if self._rejected is not None:
            # Escaped, because what a row was rejected for may be text that has no UTF-8.
            line = json.dumps({"where": where, "reason": reason, "row": row}, default=str)
            self._rejected.write(line + "\n")

    def add_rated(self, prompt_id: str, rated: Rated) -> None:
        """Remember a rated response until the others to its prompt are known."""
        row = (hash(prompt_id), rated.response, json.dumps(rated.ratings))
        self._database.execute("INSERT INTO rated VALUES (?, ?, ?)", row)

    def rated_pools(self) -> Iterator[tuple[str, str, list[Rated]]]:
        """(prompt id, split, rated responses) of every prompt, and forget them."""
        self._store_prompts()
        found = self._database.execute(
            "SELECT id, split, response, ratings FROM rated JOIN prompts ON key = prompt "
            "ORDER BY place, rated.rowid"
        )
        for (prompt_id, split), rows in groupby(found, key=itemgetter(0, 1)):
            yield prompt_id, split, [Rated(text, json.loads(ratings)) for _, _, text, ratings in rows]
        self._database.execute("DELETE FROM rated")

    def repeats(self, sources: int) -> list[tuple[int, int]]:
        """By source: pairs that were there before, and pairs that are there the other way round as well."""
        self._store_pairs()
        # A sort may fill the cache, and there are several.
        self._database.execute("PRAGMA cache_size = -4096")
        found = {source: (again, both) for source, again, both in self._database.execute(_REPEATS)}
        return [found.get(number, (0, 0)) for number in range(sources)]

    def leaks(self) -> int:
        """Prompts outside of training whose first user turn is that of a training prompt but for case,
        punctuation and white space."""
        self._store_prompts()
        return int(self._database.execute(_LEAKS).fetchone()[0])

    def _store_pairs(self) -> None:
        self._database.executemany("INSERT INTO pairs VALUES (?, ?, ?, ?, ?)", self._new_pairs)
        self._new_pairs.clear()

    def _store_prompts(self) -> None:
        given = [
            (key, place, placed.id, placed.split, hash(placed.plain))
            for place, (key, (placed, _)) in enumerate(self._new_prompts.items(), self._places)
        ]
        self._places += len(given)
        added = self._database.executemany("INSERT OR IGNORE INTO prompts VALUES (?, ?, ?, ?, ?)", given)
        if added.rowcount < len(given):
            # A prompt that was there before has kept its place.
            marks = ", ".join("?" * len(given))
            query = f"SELECT key, place FROM prompts WHERE key IN ({marks})"
            places = dict(self._database.execute(query, [key for key, *_ in given]).fetchall())
            for key, place, *_ in given:
                if places[key] != place:
                    del self._new_prompts[key]
        for placed, category in self._new_prompts.values():
            self.counts["prompts"] += 1
            self.counts[f"prompts/{placed.split}"] += 1
            # The messages are JSON already.
            self._prompts.write(
                f'{{"id": {quoted(placed.id)}, "messages": {placed.messages_json}, '
                f'"split": "{placed.split}", "category": {quoted(category)}}}\n'
            )
        self._new_prompts.clear()
