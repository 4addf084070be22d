"""Jobs of the tests of ranks, apart from what takes seconds to import."""

import time
from pathlib import Path

import numpy as np
from preforch_training.distributed.config import Config
from preforch_training.distributed.group import (
    broadcast,
    gather,
    rank,
    settings,
    size,
    together,
    wait_for_all,
)
from preforch_training.distributed.shares import check_batch_size, shared


def squares(folder: Path) -> None:
    """Every rank's square, and rank 0's word."""
    together(write_square, folder)
    # A second job: the others wait for it.
    assert together(gather_squares) == [0, 1, 4]
    values = shared(double, list(range(7)), ["x"] * 7, lengths=[5, 1, 9, 1, 7, 2, 2])
    np.testing.assert_array_equal(values, 2 * np.arange(7))
    np.testing.assert_array_equal(shared(double, [4, 5], ["x", "y"], lengths=[1, 1]), [8, 10])


def write_square(folder: Path) -> None:
    assert size() == 3
    assert broadcast(rank() + 7) == 7
    assert settings() == Config()
    (folder / f"square-{rank()}").write_text(str(rank() ** 2), encoding="utf-8")
    wait_for_all()
    assert len(list(folder.glob("square-*"))) == 3


def gather_squares() -> list[int]:
    return gather(rank() ** 2)


def double(numbers: list[int], words: list[str]) -> np.ndarray:
    assert len(numbers) == len(words)
    # Work that lies in one process only would show here.
    assert len(numbers) <= 3
    return np.array(numbers) * 2


def fails_elsewhere(folder: Path) -> None:
    together(fail_on_rank_1, folder)


def fail_on_rank_1(folder: Path) -> None:
    if rank() == 1:
        raise MemoryError("rank 1 has no room")
    gather(rank())


def fails_everywhere(folder: Path) -> None:
    together(fail, folder)


def fail(folder: Path) -> None:
    raise ValueError("a loss is not finite")


def waits(folder: Path) -> None:
    """Rank 0 is busy with something else, as it is while it samples."""
    together(gather_squares)
    (folder / "waiting").touch()
    time.sleep(120)


def hangs(folder: Path) -> None:
    """A job that would never end."""
    together(hang, folder)


def hang(folder: Path) -> None:
    (folder / f"waiting-{rank()}").touch()
    (folder / "waiting").touch()
    time.sleep(120)


def three_share_a_batch(folder: Path) -> None:
    assert check_batch_size(12, name="reward.funny.batch_size") == 4
    check_batch_size(8, name="reward.funny.batch_size")
