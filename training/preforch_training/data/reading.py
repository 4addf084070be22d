"""Sources into prompts and pairs: every row checked, every prompt on its side of the split, everything
counted.

In:  `[data]`'s sources: pairs, rated responses, several responses and a choice, or prompts alone.
Out: records in a `DataWriter`, and a `SourceReport` of each source.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from preforch_models.manifest import digest, sha256_of

from preforch_training.data.config import Config, Source
from preforch_training.data.files import rows_of
from preforch_training.data.report import SourceCounts
from preforch_training.data.rows.choices import read_choices
from preforch_training.data.rows.pairs import check_compared, read_pairs, read_prompt
from preforch_training.data.rows.ratings import rated_pairs, read_rated
from preforch_training.data.rows.record import BadRow, Row, RowPair, RowPrompt, entries_of, open_row
from preforch_training.data.splits import Placed, place
from preforch_training.data.writing import DataWriter
from preforch_training.records import RecordError

T = TypeVar("T")


def read_sources(
    writer: DataWriter, config: Config, names: tuple[str, ...], *, seed: int
) -> list[SourceCounts]:
    """All pairs of all sources. A bad row stops the stage or is kept aside, as the config says. Raises
    ValueError for a source that gives nothing."""
    if not config.sources:
        raise ValueError("[data] source = 'files' needs at least one entry in sources")
    found = []
    for number, source in enumerate(config.sources):
        reading = SourceReading(writer, config, source, names, number=number)
        reading.read(seed=seed)
        found.append(reading.counts)
    return found


class SourceReading:
    """One source on its way into the writer."""

    def __init__(
        self, writer: DataWriter, config: Config, source: Source, names: tuple[str, ...], *, number: int
    ) -> None:
        self._writer, self._config, self._source, self._names = writer, config, source, names
        self._number = number
        self.counts = SourceCounts(source.label)

    def read(self, *, seed: int) -> None:
        """Add everything that the source has. Raises ValueError where that is nothing."""
        source, counts = self._source, self.counts
        for objective in source.compared or (() if source.columns.objective else (source.objective,)):
            try:
                check_compared(objective, self._names)
            except BadRow as error:
                raise ValueError(f"{source.label}: {error}") from error
        if source.ratings and not source.columns.responses:
            self._read_ratings(seed)
        else:
            self._read_rows(self._parser())
        for objective in source.compared:
            missing = counts.left_out[f"{objective}: missing"]
            if 0 < counts.prompts <= missing and not counts.pairs[objective]:
                what = f"{objective!r} is missing in every row"
                raise ValueError(f"{source.label}: {what} of {counts.summary()}")
        if not counts.pairs and (source.pairs == "on" or not counts.prompts):
            raise ValueError(f"{source.label}: no {self._wanted} in {counts.summary()}")

    @property
    def _wanted(self) -> str:
        return "pair" if self._source.pairs == "on" else "prompt"

    def _parser(self) -> Callable[[dict[str, Any]], Row]:
        source, names = self._source, self._names
        if source.pairs == "off":
            return lambda row: read_prompt(row, source)
        if source.columns.responses:
            return lambda row: read_choices(row, source)
        return lambda row: read_pairs(row, source, names)

    def _read_rows(self, parse: Callable[[dict[str, Any]], Row]) -> None:
        """Rows of which each says its own pairs."""
        for where, row in self._good_rows(parse):
            self.counts.left_out.update(row.left_out)
            placed = self._add_prompt(row.prompt)
            pair_id = f"{self._number}-{where.rpartition(':')[2]}"
            for k, pair in enumerate(row.pairs):
                one = pair_id if len(row.pairs) == 1 else f"{pair_id}:{k}"
                self._add_pair(one, placed.id, placed.split, pair)

    def _read_ratings(self, seed: int) -> None:
        """Rows of one rated response each: prompt by prompt, pairs of those that are rated apart."""
        source = self._source
        for _, (prompt, rated, left_out) in self._good_rows(lambda row: read_rated(row, source)):
            self.counts.left_out.update(left_out)
            placed = self._add_prompt(prompt)
            self.counts.response_lengths[len(rated.response)] += 1
            self._writer.add_rated(placed.id, rated)
        for prompt_id, split, pool in self._writer.rated_pools():
            pairs, left_out = rated_pairs(
                pool,
                prompt_id=prompt_id,
                overall=source.overall,
                min_gap=source.min_gap,
                limit=source.pairs_per_prompt,
                seed=seed,
            )
            self.counts.left_out.update(left_out)
            for key, pair in pairs.items():
                self._add_pair(f"{self._number}-{key}", prompt_id, split, pair)

    def _good_rows(self, parse: Callable[[dict[str, Any]], T]) -> Iterator[tuple[str, T]]:
        """(place, parsed row). A row that cannot be read stops the stage or is kept aside."""
        source = self._source

        def opened(row: Any) -> T:
            # What a list holds has been opened with its row.
            return parse(row if source.each and isinstance(row, dict) else open_row(row, source))

        for where, row in self._entries():
            parsed = self._tried(where, row, opened)
            if parsed is not None:
                self.counts.rows += 1
                yield where, parsed

    def _entries(self) -> Iterator[tuple[str, Any]]:
        """(place, row) of the source's rows, or of what they list in the column `each`."""
        source = self._source
        rows = rows_of(source, self._config.root)
        if source.each is None:
            yield from rows
            return
        for where, row in rows:
            for number, entry in self._tried(where, row, lambda row: entries_of(row, source)) or ():
                yield f"{where}.{number}", entry

    def _tried(self, where: str, row: Any, read: Callable[[Any], T]) -> T | None:
        """What is read of a row; None where it is kept aside."""
        try:
            return read(row)
        except (BadRow, RecursionError) as error:
            reason = error.reason if isinstance(error, BadRow) else "nested too deeply"
            message = str(error) if isinstance(error, BadRow) else reason
            if self._config.on_bad_record == "stop":
                raise RecordError(f"{where}: {message}") from error
            self.counts.rows += 1
            self.counts.skipped[reason] += 1
            self._writer.reject(where, message, row)
            return None

    def _add_prompt(self, asked: RowPrompt) -> Placed:
        """The prompt with these messages: its id is a hash of it, its split one of its first user turn."""
        config, messages = self._config, asked.messages
        placed = place(messages, validation=config.validation_share, test=config.test_share)
        self._writer.add_prompt(placed, category=asked.category)
        self.counts.prompts += 1
        self.counts.prompt_lengths[sum(len(message.content) for message in messages)] += 1
        return placed

    def _add_pair(self, pair_id: str, prompt_id: str, split: str, pair: RowPair) -> None:
        self.counts.pairs[pair.objective] += 1
        if self._source.columns.responses or not self._source.ratings:
            self.counts.response_lengths[len(pair.chosen)] += 1
            self.counts.response_lengths[len(pair.rejected)] += 1
        label, number = self._source.label, self._number
        self._writer.add_pair(pair_id, prompt_id, pair, split=split, source=label, number=number)


def source_hashes(config: Config) -> dict[str, str]:
    """sha256 of local files and folders, revision of datasets on the hub: what the stage's result depends
    on."""
    hashes = {}
    for source in config.sources:
        if source.path is not None and (config.root / source.path).is_file():
            hashes[str(source.path)] = sha256_of(config.root / source.path)
        elif source.dataset is not None:
            folder = config.root / source.dataset
            files = {str(path): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}
            hashes[source.dataset] = digest(files) if folder.is_dir() else source.revision
    return hashes
