"""Stray sentences: repeated ones, and those beyond the usual number."""

import pytest
from preforch_training.policy.reinforced.repetition import sentences, stray_sentences, usual_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("One. Two? Three!", 0),
        ("One. Two. One.", 1),
        ("One.  TWO. two. One. one.", 3),
        ("A line\nA line\n\nanother", 1),
        # Of six different ones two are beyond four.
        ("A. B. C. D. E. F.", 2),
        # A repeated one counts once, wherever it stands.
        ("A. B. C. D. E. A.", 2),
        ("好。好。不好。", 1),
        # Numbers of lists are no sentences.
        ("1. Peel it.\n2. Boil it.\n\n1. Eat it.", 0),
    ],
)
def test_stray_sentences(text: str, expected: int) -> None:
    assert stray_sentences(text, usual=4) == expected


def test_sentences_are_compared_without_case_and_spacing() -> None:
    assert sentences(" Boil  it.\nboil it. ") == ["boil it.", "boil it."]


def test_numbers_and_abbreviations_inside_a_word_end_nothing() -> None:
    assert len(sentences("Use 3.5 g of it.")) == 1


def test_the_usual_number_is_that_of_all_but_one_in_twenty() -> None:
    texts = ["A."] * 10 + ["A. B. C."] * 9 + ["A. B. C. D. E. F. G."]
    assert usual_number(texts) == 7
    assert usual_number(["A."] * 10 + ["A. B. C."] * 30 + ["A. B. C. D. E. F. G."]) == 3
