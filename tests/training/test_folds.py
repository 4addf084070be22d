"""Folds: a prompt has one, always the same, and all are used about equally."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from preforch_models.conversation import Message
from preforch_training.folds import fold_of, position_of


def asked(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


@given(st.text(), st.integers(1, 20))
def test_a_prompt_has_one_fold_within_range(text: str, folds: int) -> None:
    assert 0 <= fold_of(asked(text), folds) < folds
    assert 0 <= position_of(asked(text)) < 1


def test_folds_never_change_between_versions() -> None:
    assert [fold_of(asked(text), 5) for text in ("a", "b", "prompt", "ü")] == [3, 1, 0, 3]


def test_conversations_that_begin_alike_share_a_fold() -> None:
    longer = (*asked("how  do I\nfix it"), Message(role="assistant", content="No."), *asked("Why?"))
    assert fold_of(asked("How do I fix it"), 7) == fold_of(longer, 7)
    assert position_of(asked("How do I fix it")) == position_of(longer)


def test_all_folds_are_about_equally_large() -> None:
    sizes = Counter(fold_of(asked(str(i)), 5) for i in range(2000))
    assert sorted(sizes) == [0, 1, 2, 3, 4]
    assert max(sizes.values()) - min(sizes.values()) < 100


def test_folds_and_splits_are_drawn_apart() -> None:
    test = Counter(fold_of(asked(str(i)), 5) for i in range(4000) if position_of(asked(str(i))) < 0.1)
    assert sorted(test) == [0, 1, 2, 3, 4]
