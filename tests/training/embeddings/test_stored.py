"""Vectors in a file: read back block by block, none lost between two."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from preforch_training.embeddings import stored
from preforch_training.embeddings.stored import StoredVectors, blocks_of, scratch_folder, store_vectors

WHOLE = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredVectors:
    """In blocks of five."""
    monkeypatch.setattr(stored, "BLOCK_NUMBERS", 20)
    return store_vectors(tmp_path / "vectors", (WHOLE[start : start + 7] for start in range(0, 23, 7)))


def test_blocks_are_all_rows_in_order(vectors: StoredVectors) -> None:
    assert len(vectors) == 23
    assert vectors.shape == (23, 4)
    blocks = list(vectors.blocks())
    assert [len(block) for block in blocks] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.concatenate(blocks), WHOLE)
    np.testing.assert_array_equal(vectors[np.array([22, 0])], WHOLE[[22, 0]])


@pytest.mark.parametrize(
    ("most", "rows"),
    [(23, range(23)), (100, range(23)), (12, range(0, 23, 2)), (3, (0, 11, 22)), (1, (0,))],
)
def test_a_sample_is_even_and_as_large_as_asked(
    vectors: StoredVectors, most: int, rows: Sequence[int]
) -> None:
    np.testing.assert_array_equal(vectors.sample(most), WHOLE[list(rows)])


def test_of_nothing_nothing_is_drawn(tmp_path: Path) -> None:
    nothing = store_vectors(tmp_path / "nothing", [])
    assert [len(nothing), len(nothing.sample(5)), list(nothing.blocks())] == [0, 0, []]


def test_a_scratch_folder_is_empty_and_does_not_last(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "of a killed stage").touch()
    with scratch_folder(tmp_path) as scratch:
        assert list(scratch.iterdir()) == []
        (scratch / "vectors").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_change_to_a_block_is_none_to_the_file(vectors: StoredVectors) -> None:
    torch.from_numpy(vectors[0:5]).zero_()
    np.testing.assert_array_equal(vectors[0:5], WHOLE[:5])


def test_a_row_wider_than_a_block_is_one() -> None:
    assert list(blocks_of(2, stored.BLOCK_NUMBERS * 2)) == [slice(0, 1), slice(1, 2)]
