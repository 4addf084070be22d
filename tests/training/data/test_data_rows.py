"""One row: prompts and responses of every form that real data come in."""

import pytest
from preforch_models.conversation import Message
from preforch_training.data.rows import messages_of, response_of


def test_hh_text_becomes_turns() -> None:
    text = "\n\nHuman: Hi: there\n\nmore\n\nAssistant: Hello\n\nHuman: Joke?\n\nAssistant:"
    assert messages_of(text, column="p") == (
        Message(role="user", content="Hi: there\n\nmore"),
        Message(role="assistant", content="Hello"),
        Message(role="user", content="Joke?"),
    )


def test_hh_text_without_the_last_assistant_mark_keeps_every_turn() -> None:
    assert messages_of("\n\nHuman: Hi", column="p") == (Message(role="user", content="Hi"),)


def test_a_list_of_messages_is_taken_as_it_is() -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert messages_of(turns, column="p") == tuple(Message(**turn) for turn in turns)


def test_the_role_prompter_becomes_user() -> None:
    turns = [{"role": "prompter", "content": "u"}, {"role": "assistant", "content": "a"}]
    assert messages_of([*turns, turns[0]], column="p") == tuple(
        Message(role=role, content=text) for role, text in (("user", "u"), ("assistant", "a"), ("user", "u"))
    )


def test_a_response_may_be_the_last_of_a_list_of_messages() -> None:
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": " a "}]
    assert response_of(turns, column="chosen") == "a"


@pytest.mark.parametrize("value", [[], [{"role": "assistant"}], [{"content": None}], {"content": "a"}, ["a"]])
def test_a_response_of_another_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="column 'chosen' must be a non-empty response"):
        response_of(value, column="chosen")
