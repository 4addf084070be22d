"""Prompts unlike training data: always the same, of every kind, and separated as scikit-learn says."""

import ast
import unicodedata

import numpy as np
import pytest
from preforch_training.embeddings.vectors import MINILM, encoder_path
from preforch_training.orchestrator.confidence.familiarity import FOREIGN_TEXTS
from preforch_training.orchestrator.confidence.foreign_texts import foreign_texts
from preforch_training.orchestrator.stage import foreign_prompts
from preforch_training.report.robustness.unlike_prompts import separation, unlike_prompts
from preforch_training.statistics.bootstrap import Bootstrap
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer

HELD = ("How do I bake bread?", "Name a tree that likes shade.")
WORDS = ("amber", "bolt", "cedar")


def made(*, seed: int = 0, count: int = 30) -> dict[str, list[str]]:
    return unlike_prompts(HELD, words=WORDS, long_characters=500, seed=seed, count=count)


def test_a_seed_always_makes_the_same_prompts_and_another_one_others() -> None:
    assert made() == made()
    assert all(made()[kind] != made(seed=1)[kind] for kind in made())
    assert list(made()) == ["code", "languages", "noise", "long"]
    assert all(len(texts) == 30 for texts in made().values())


def test_code_is_code() -> None:
    code = made()["code"]
    assert len(set(code)) == len(code)
    # Python comes first of the four that are measured.
    for text in code[::4]:
        assert isinstance(ast.parse(text).body[1], ast.ClassDef)
    assert all("{{" not in text and "}}" not in text for text in code)


def test_languages_cover_many_scripts() -> None:
    letters = {unicodedata.name(c).split()[0] for text in made()["languages"] for c in text if c.isalpha()}
    assert letters >= {"LATIN", "CYRILLIC", "ARABIC", "CJK", "HANGUL"}
    assert all("{}" not in text for text in made()["languages"])


def test_noise_is_characters_and_words_in_turn() -> None:
    noise = made()["noise"]
    assert all(set(text.split()) <= set(WORDS) for text in noise[1::2])
    assert not any(set(text.split()) & set(WORDS) for text in noise[::2])


def test_what_is_measured_is_not_what_the_confidence_was_fitted_to() -> None:
    fitted = foreign_texts(half="fitted", words=WORDS, seed=0, count=90)
    assert not {text for texts in fitted.values() for text in texts} & {
        text for texts in made(count=90).values() for text in texts
    }
    scripts = {unicodedata.name(c).split()[0] for text in fitted["languages"] for c in text if c.isalpha()}
    assert scripts.isdisjoint({"CYRILLIC", "HANGUL"})
    assert {"GREEK", "DEVANAGARI", "HIRAGANA"} & scripts
    # Of code, the first words of Python's functions and of its classes.
    assert any(text.startswith("def ") for text in fitted["code"])
    assert not any(text.startswith("def ") for text in made(count=90)["code"])
    tokenizer = AutoTokenizer.from_pretrained(encoder_path(MINILM))
    prompts = foreign_prompts(tokenizer, seed=0)
    assert len(prompts) == 3 * FOREIGN_TEXTS
    assert any(text.startswith("def ") for text in prompts)


def test_long_prompts_are_held_out_ones_in_a_row() -> None:
    for text in made()["long"]:
        assert len(text) >= 500
        assert set(text.split("\n")) <= set(HELD)


def test_the_auroc_is_that_of_scikit_learn_and_lies_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    inside, near, ties = rng.normal(size=60), rng.normal(-1, size=40), np.repeat([0.0, 1.0], 20)
    inside[:5] = 1.0
    found = separation(inside, {"near": near, "ties": ties}, bootstrap=Bootstrap(0, 1000))
    for kind, outside in {"near": near, "ties": ties}.items():
        expected = roc_auc_score([1] * 60 + [0] * 40, np.concatenate([inside, outside]))
        assert found[kind].value == pytest.approx(expected)
        assert found[kind].low < expected < found[kind].high
        assert found[kind].groups == 100
    # The error of an AUROC of 0.76 with 60 and 40 values is about 0.05.
    assert 0.1 < found["near"].high - found["near"].low < 0.3


def test_what_lies_fully_apart_has_an_auroc_of_one() -> None:
    found = separation(np.array([0.8, 0.9]), {"far": np.array([0.1, 0.2, 0.3])}, bootstrap=Bootstrap(0, 50))[
        "far"
    ]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
