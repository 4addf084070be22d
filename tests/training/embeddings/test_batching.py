"""Batches: every text once, no batch over its budget, little padding, ids as the tokenizer writes them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preforch_training.embeddings.batching import length_batches, padded_batches
from small_world import questions
from transformers import AutoTokenizer


@given(st.lists(st.integers(min_value=0, max_value=50)), st.integers(min_value=1, max_value=200))
def test_every_row_comes_once_longest_first_and_within_the_budget(lengths: list[int], tokens: int) -> None:
    batches = list(length_batches(lengths, tokens=tokens))
    rows = [i for batch in batches for i in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[i] for i in rows] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens


def test_short_texts_share_a_batch_and_a_long_one_is_alone() -> None:
    assert list(length_batches([3, 100, 4, 4, 2], tokens=12)) == [[1], [2, 3, 0], [4]]


@pytest.mark.parametrize("tokens", [1, 40, 10_000])
def test_a_batch_holds_the_tokens_of_its_texts_cut_to_max_tokens(encoder: Path, tokens: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    texts = ["danger", *questions()[:5], " ".join(["joke"] * 20)]
    seen = {}
    for rows, batch in padded_batches(tokenizer, texts, max_tokens=8, tokens=tokens, title="test"):
        assert batch["input_ids"].numel() <= max(tokens, 8)
        for i, ids, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
            seen[i] = ids[mask.bool()].numpy()
    for i, text in enumerate(texts):
        np.testing.assert_array_equal(seen[i], tokenizer(text, truncation=True, max_length=8)["input_ids"])
