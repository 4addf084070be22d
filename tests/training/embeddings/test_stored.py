"""Vectors in a file: read back block by block, none lost between two."""

from pathlib import Path

import numpy as np
import pytest
import torch
from preforch_training.embeddings import stored
from preforch_training.embeddings.stored import StoredVectors, blocks_of, store_vectors

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


@pytest.mark.parametrize(("most", "step"), [(23, 1), (100, 1), (12, 2), (11, 3), (1, 23)])
def test_a_sample_is_even_and_no_larger_than_asked(vectors: StoredVectors, most: int, step: int) -> None:
    sample = vectors.sample(most)
    np.testing.assert_array_equal(sample, WHOLE[::step])
    assert len(sample) <= most


def test_a_change_to_a_block_is_none_to_the_file(vectors: StoredVectors) -> None:
    torch.from_numpy(vectors[0:5]).zero_()
    np.testing.assert_array_equal(vectors[0:5], WHOLE[:5])


def test_a_row_wider_than_a_block_is_one() -> None:
    assert list(blocks_of(2, stored.BLOCK_NUMBERS * 2)) == [slice(0, 1), slice(1, 2)]
