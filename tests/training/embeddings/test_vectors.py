"""Frozen vectors: each text encoded once, the same beside any other, and the packaged encoder verified."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from preforch_training.embeddings import vectors as vectors_module
from preforch_training.embeddings.vectors import MINILM, EncoderSettings, TextVectors, encoder_path
from small_world import questions
from transformers import AutoModel, AutoTokenizer

TEXTS = [*questions()[:70], "joke", " ".join(["danger"] * 40)]


def open_vectors(encoder: Path, cache: Path, *, part_seconds: float = 30.0, **options: Any) -> TextVectors:
    settings = {"name": str(encoder), "pooling": "mean", "max_tokens": 24, **options}
    return TextVectors(EncoderSettings(**settings), cache, part_seconds=part_seconds)


def kept(cache: Path) -> list[int]:
    """Vectors in each file."""
    counts = []
    for file in sorted(cache.glob("*.sqlite")):
        with closing(sqlite3.connect(file)) as database:
            counts += database.execute("SELECT COUNT(*) FROM vectors").fetchone()
    return counts


def test_vectors_come_in_the_order_of_the_texts_and_do_not_depend_on_the_others(
    encoder: Path, tmp_path: Path
) -> None:
    together = open_vectors(encoder, tmp_path / "a")(TEXTS)
    assert together.shape == (len(TEXTS), 32)
    assert together.dtype == np.float32
    backwards = open_vectors(encoder, tmp_path / "b")(TEXTS[::-1])
    np.testing.assert_allclose(backwards[::-1], together, atol=1e-5)
    alone = open_vectors(encoder, tmp_path / "c")
    for i in (0, 1, 70, 71):
        np.testing.assert_allclose(alone([TEXTS[i]])[0], together[i], atol=1e-5)


def test_a_text_is_encoded_once_and_then_read_from_the_cache(encoder: Path, tmp_path: Path) -> None:
    first = open_vectors(encoder, tmp_path)(TEXTS[:5])
    assert kept(tmp_path) == [5]
    again = open_vectors(encoder, tmp_path)
    np.testing.assert_array_equal(again(TEXTS[:5]), first)
    assert kept(tmp_path) == [5]
    np.testing.assert_array_equal(again([TEXTS[6], TEXTS[0], TEXTS[0]])[1:], first[[0, 0]])
    assert kept(tmp_path) == [6]
    np.testing.assert_array_equal(open_vectors(encoder, tmp_path)([TEXTS[6], *TEXTS[:5]])[1:], first)
    assert kept(tmp_path) == [6]


def test_what_a_killed_run_had_stored_is_not_encoded_again(encoder: Path, tmp_path: Path) -> None:
    texts = [f"{text} {' '.join(['go'] * (i % 16))}" for i, text in enumerate(TEXTS * 3)]
    # Lengths that need several batches, each of which is a part of its own.
    parts = open_vectors(encoder, tmp_path, part_seconds=0).store(texts)
    stored = next(parts)
    assert 0 < stored < len(set(texts))
    # The kill: nothing after the first part happens.
    del parts
    assert kept(tmp_path) == [stored]
    again = open_vectors(encoder, tmp_path)
    assert sum(again.store(texts)) == len(set(texts)) - stored
    np.testing.assert_allclose(again(texts), open_vectors(encoder, tmp_path / "whole")(texts), atol=1e-5)
    np.testing.assert_array_equal(open_vectors(encoder, tmp_path)(texts), again(texts))


def test_many_texts_are_encoded_some_at_a_time(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_vectors(encoder, tmp_path / "whole")(TEXTS)
    monkeypatch.setattr(vectors_module, "TEXTS_AT_ONCE", 10)
    monkeypatch.setattr(vectors_module, "_KEYS_AT_ONCE", 3)
    some = open_vectors(encoder, tmp_path / "some")
    assert max(some.store(iter(TEXTS))) <= 10
    np.testing.assert_allclose(some(TEXTS), whole, atol=1e-5)
    assert kept(tmp_path / "some") == kept(tmp_path / "whole")


def test_a_damaged_cache_is_named(encoder: Path, tmp_path: Path) -> None:
    open_vectors(encoder, tmp_path)(TEXTS[:2])
    [file] = tmp_path.glob("*.sqlite")
    file.write_bytes(b"no database at all" * 500)
    with pytest.raises(OSError, match=rf"{file.name}: file is not a database; a damaged file may be deleted"):
        open_vectors(encoder, tmp_path)(TEXTS[:2])


def test_vectors_that_vanish_are_missed(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = open_vectors(encoder, tmp_path)
    vectors(TEXTS[:2])
    monkeypatch.setattr(vectors, "store", lambda texts: iter(()))
    with pytest.raises(OSError, match="1 vectors that were stored are not there any more"):
        vectors([TEXTS[0], TEXTS[5]])


def test_no_vectors_of_no_texts(encoder: Path, tmp_path: Path) -> None:
    assert len(open_vectors(encoder, tmp_path)([])) == 0


@pytest.mark.parametrize("change", [{"pooling": "cls"}, {"max_tokens": 4}, {"layers": (0,)}])
def test_other_settings_never_share_a_vector(encoder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    vectors = open_vectors(encoder, tmp_path)(TEXTS[:3])
    other = open_vectors(encoder, tmp_path, **change)(TEXTS[:3])
    assert np.abs(vectors - other).max() > 1e-3
    assert kept(tmp_path) == [3, 3]


def test_a_checkpoint_in_half_precision_gives_the_vectors_of_its_weights_in_single(
    encoder: Path, tmp_path: Path
) -> None:
    """Half precision would let a vector depend on its neighbours, and is slow on most CPUs."""
    half = AutoModel.from_pretrained(encoder).to(torch.bfloat16)
    for dtype in (torch.bfloat16, torch.float32):
        folder = tmp_path / str(dtype)
        half.to(dtype).save_pretrained(folder)
        AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    stored_half, stored_single = (
        open_vectors(tmp_path / str(dtype), tmp_path / "cache")(TEXTS)
        for dtype in (torch.bfloat16, torch.float32)
    )
    np.testing.assert_allclose(stored_half, stored_single, atol=1e-6)


def test_joined_layers_are_the_vectors_of_each_side_by_side(encoder: Path, tmp_path: Path) -> None:
    joined = open_vectors(encoder, tmp_path, layers=(0, -1))(TEXTS)
    assert joined.shape == (len(TEXTS), 64)
    for place, layers in enumerate([(0,), (-1,)]):
        alone = open_vectors(encoder, tmp_path, layers=layers)(TEXTS)
        np.testing.assert_allclose(joined[:, 32 * place : 32 * (place + 1)], alone, atol=1e-5)


def test_a_layer_that_the_encoder_does_not_have_names_the_allowed_ones(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layer 2 does not exist; the encoder has 0 to 1, or -1 to -2"):
        open_vectors(encoder, tmp_path, layers=(2,))(TEXTS[:2])
    assert kept(tmp_path) == []


def test_a_folder_or_hub_id_is_its_own_path() -> None:
    assert encoder_path("FacebookAI/xlm-roberta-base") == "FacebookAI/xlm-roberta-base"


def test_the_packaged_encoder_is_found_and_verified() -> None:
    folder = Path(encoder_path(MINILM))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
