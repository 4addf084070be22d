"""The score table on disk: `scores.parquet` (ScoredResponse) and `calibration.json`."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from preforch_models.calibration import Calibration

from preforch_training.records import ScoredResponse, in_batches, read_record, write_record

_SCORES_FILE, _CALIBRATION_FILE = "scores.parquet", "calibration.json"
_ROWS_AT_ONCE = 10_000


def write_scores(folder: Path, scores: Iterable[ScoredResponse], names: Sequence[str]) -> None:
    """Write the table; rewards become one column per objective named `reward.<objective>`."""
    texts = ("prompt_id", "pair_id", "side", "response")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("fold", pa.int64()),
            ("split", pa.string()),
            *((f"reward.{name}", pa.float64()) for name in names),
        ]
    )
    with pq.ParquetWriter(folder / _SCORES_FILE, schema) as writer:
        for batch in in_batches(scores, _ROWS_AT_ONCE):
            writer.write_table(pa.Table.from_pylist([_row(score) for score in batch], schema=schema))


def _row(score: ScoredResponse) -> dict[str, Any]:
    rewards = {f"reward.{name}": value for name, value in score.rewards.items()}
    return score.model_dump(exclude={"rewards"}) | rewards


def each_score(folder: Path, *, split: str | None = None) -> Iterator[ScoredResponse]:
    """The scored responses of a split, or all, one after the other."""
    # Buffered ahead, all that was read would stay in memory.
    with pq.ParquetFile(folder / _SCORES_FILE, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            if split is not None:
                batch = batch.filter(pyarrow.compute.equal(batch.column("split"), split))
            yield from map(_score, batch.to_pylist())


def _score(row: dict[str, Any]) -> ScoredResponse:
    rewards = {key.removeprefix("reward."): row.pop(key) for key in list(row) if key.startswith("reward.")}
    return ScoredResponse.model_validate({**row, "rewards": rewards})


def read_scores(folder: Path) -> list[ScoredResponse]:
    """All scored responses."""
    return list(each_score(folder))


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write the constants beside the table."""
    write_record(folder / _CALIBRATION_FILE, calibration)


def read_calibration(folder: Path) -> Calibration:
    """The calibration constants of a run."""
    return read_record(folder / _CALIBRATION_FILE, Calibration)
