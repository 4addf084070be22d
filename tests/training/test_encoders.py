"""Frozen vectors: each text encoded once, the same beside any other text, and the packaged encoder verified."""

from pathlib import Path

import numpy as np
import pytest
from preforch_training.encoders import MINILM, EncoderSettings, TextVectors, encoder_path
from small_world import questions

TEXTS = [*questions()[:70], "joke", " ".join(["danger"] * 40)]


def open_vectors(encoder: Path, cache: Path, **options: object) -> TextVectors:
    settings = {"name": str(encoder), "pooling": "mean", "max_tokens": 24, **options}
    return TextVectors(EncoderSettings(**settings), cache)  # type: ignore[arg-type]


def test_vectors_come_in_the_order_of_the_texts_and_do_not_depend_on_the_others(encoder: Path, tmp_path: Path) -> None:
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
    [file] = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    again = open_vectors(encoder, tmp_path)
    np.testing.assert_array_equal(again(TEXTS[:5]), first)
    assert file.stat().st_mtime_ns == before
    np.testing.assert_array_equal(again([TEXTS[6], TEXTS[0], TEXTS[0]])[1:], first[[0, 0]])
    assert file.stat().st_mtime_ns > before


@pytest.mark.parametrize("change", [{"pooling": "cls"}, {"max_tokens": 4}])
def test_other_settings_never_share_a_vector(encoder: Path, tmp_path: Path, change: dict[str, object]) -> None:
    vectors = open_vectors(encoder, tmp_path)(TEXTS[:3])
    other = open_vectors(encoder, tmp_path, **change)(TEXTS[:3])
    assert np.abs(vectors - other).max() > 1e-3
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_or_hub_id_is_its_own_path() -> None:
    assert encoder_path("FacebookAI/xlm-roberta-base") == "FacebookAI/xlm-roberta-base"


def test_the_packaged_encoder_is_found_and_verified() -> None:
    folder = Path(encoder_path(MINILM))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
