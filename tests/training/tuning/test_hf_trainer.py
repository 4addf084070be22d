"""Which checkpoint a trainer continues from."""

from pathlib import Path

import pytest
from preforch_training.tuning.hf_trainer import last_checkpoint


def write_checkpoint(work: Path, step: int, sharding: str | None) -> Path:
    folder = work / f"checkpoint-{step}"
    folder.mkdir()
    if sharding is not None:
        (folder / "complete").write_text(sharding, encoding="utf-8")
    return folder


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 9, "ddp")
    newest = write_checkpoint(tmp_path, 10, "ddp")
    write_checkpoint(tmp_path, 11, None)
    assert last_checkpoint(tmp_path) == str(newest)


def test_a_checkpoint_in_shards_is_refused_by_one_process_and_says_how_to_go_on(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, "fsdp2")
    with pytest.raises(ValueError, match="checkpoint-1 was written with sharding 'fsdp2', this"):
        last_checkpoint(tmp_path)
