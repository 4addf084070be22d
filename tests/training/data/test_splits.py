"""Folds and splits by prompt: what a conversation begins with decides; all folds are used about equally."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preforch_models.conversation import Message
from preforch_training.data.splits import fold_of, place, plain_words, position_of


def talk(*turns: str) -> list[Message]:
    """A conversation in which the user begins, after a system prompt."""
    roles = ("user", "assistant")
    return [
        Message(role="system", content="s"),
        *(Message(role=roles[i % 2], content=t) for i, t in enumerate(turns)),
    ]


@given(st.text(), st.lists(st.text(), max_size=3), st.integers(1, 20))
def test_conversations_that_begin_alike_share_a_fold_within_range(
    first: str, later: list[str], folds: int
) -> None:
    assert 0 <= position_of(talk(first)) < 1
    assert 0 <= fold_of(talk(first), folds) < folds
    assert fold_of(talk(first, *later), folds) == fold_of(talk(first), folds)


def test_case_and_white_space_do_not_matter_and_words_do() -> None:
    assert position_of(talk("Same  words\n")) == position_of(talk(" same WORDS"))
    assert position_of(talk("same words")) != position_of(talk("other words"))


def test_folds_never_change_between_versions() -> None:
    assert [fold_of(talk(text), 5) for text in ("a", "b", "prompt", "ü")] == [3, 1, 0, 3]


def test_all_folds_are_about_equally_large_within_every_split() -> None:
    messages = [talk(str(i)) for i in range(4000)]
    for low, high in ((0, 0.1), (0.1, 0.2), (0.2, 1)):
        sizes = Counter(fold_of(m, 5) for m in messages if low <= position_of(m) < high)
        assert sorted(sizes) == [0, 1, 2, 3, 4]
        mean = sum(sizes.values()) / 5
        assert max(sizes.values()) < 1.4 * mean
        assert min(sizes.values()) > 0.6 * mean


@given(st.text(min_size=1), st.text(), st.floats(0.05, 0.45), st.floats(0.05, 0.45))
def test_case_and_spaces_never_move_a_prompt_to_another_split(
    first: str, later: str, validation: float, test: float
) -> None:
    def split(*turns: str) -> str:
        messages = tuple(Message(role="user", content=turn) for turn in turns)
        return place(messages, validation=validation, test=test).split

    spaced = "  " + "\n ".join(first.lower().split()) + "\t"
    assert split(first.lower()) == split(spaced) == split(first.lower(), later)
    assert split("Same Words") == split("same  words")


@pytest.mark.parametrize("mark", ["", "é"])
def test_prompts_are_near_duplicates_where_their_words_are_the_same(mark: str) -> None:
    assert plain_words(f"ask, me; now_{mark}!") == plain_words(f"ask me\tnow {mark}") == f"askmenow{mark}"
    assert plain_words(f"ask me{mark}") != plain_words(f"ask you{mark}")
    assert plain_words("?!") == "?!"
    assert plain_words("«?!»") == "«?!»"
