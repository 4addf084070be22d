"""The score table on disk: `scores.parquet` (ScoredResponse) and `calibration.json`."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from preforch_models.calibration import Calibration

from preforch_training.records import ScoredResponse, read_record


def write_scores(folder: Path, scores: Sequence[ScoredResponse], calibration: Calibration) -> None:
    """Write both files; rewards become one column per objective named `reward.<objective>`."""
    rows = [
        {
            **score.model_dump(exclude={"rewards"}),
            **{f"reward.{name}": value for name, value in score.rewards.items()},
        }
        for score in scores
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "scores.parquet")
    (folder / "calibration.json").write_text(calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_scores(folder: Path) -> list[ScoredResponse]:
    """All scored responses."""
    scores = []
    for row in pq.read_table(folder / "scores.parquet").to_pylist():
        rewards = {
            key.removeprefix("reward."): row.pop(key) for key in list(row) if key.startswith("reward.")
        }
        scores.append(ScoredResponse.model_validate({**row, "rewards": rewards}))
    return scores


def read_calibration(folder: Path) -> Calibration:
    """The calibration constants of a run."""
    return read_record(folder / "calibration.json", Calibration)
