"""Vectors in a file, read block by block: as many as the disk holds, in the memory of one block.

In:  (P, D) float32 vectors, in parts. Out: blocks of them, as often as wanted.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK_NUMBERS = 2**22
"""Of a block: 16 MiB in single precision."""


@dataclass(frozen=True)
class StoredVectors:
    """(P, D) float32, row by row."""

    path: Path
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Some rows. What is mapped of the file is let go with them."""
        # Copied on write, because torch takes no array that cannot be written.
        return np.asarray(np.memmap(self.path, dtype=np.float32, mode="c", shape=self.shape)[rows])

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows."""
        return (self[rows] for rows in blocks_of(*self.shape))

    def sample(self, most: int) -> np.ndarray:
        """All rows, or so many, evenly drawn."""
        row_N = np.linspace(0, len(self) - 1, min(len(self), most)).round().astype(int)
        # A block after the other: rows from everywhere would map the whole file.
        parts = [
            self[rows][row_N[(row_N >= rows.start) & (row_N < rows.stop)] - rows.start]
            for rows in blocks_of(*self.shape)
        ]
        return np.concatenate(parts) if parts else np.empty(self.shape, dtype=np.float32)


def store_vectors(path: Path, parts: Iterable[np.ndarray]) -> StoredVectors:
    """Write parts of (P, D) one after the other."""
    rows = width = 0
    with path.open("wb") as file:
        for part in parts:
            file.write(part.astype(np.float32, copy=False).tobytes())
            rows, width = rows + len(part), part.shape[1]
    return StoredVectors(path, (rows, width))


@contextmanager
def scratch_folder(work: Path) -> Iterator[Path]:
    """A folder for files of the moment in a stage's work folder; what a killed stage left in it goes
    first."""
    folder = work / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def blocks_of(count: int, width: int) -> Iterator[slice]:
    """Rows 0 .. count - 1 in blocks of a bounded size."""
    rows = max(1, BLOCK_NUMBERS // max(1, width))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))
