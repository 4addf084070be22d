"""Conversations: which turn comes first in the orchestrator's text, and what content counts as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preforch_models.conversation import Message, conversation_text, escaped

roles = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
turns = st.lists(st.builds(Message, role=roles, content=st.text(max_size=8)), max_size=8)


def talk(*turns: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in turns]


def test_a_prompt_without_history_is_its_bare_text() -> None:
    assert conversation_text(talk(("user", "Hi"))) == "Hi"


def test_the_newest_user_turn_comes_first_then_newest_to_oldest_and_the_system_prompt_last() -> None:
    messages = talk(("system", "Be kind"), ("user", "one"), ("assistant", "two"), ("user", "three"))
    assert conversation_text(messages) == "three\nassistant: two\nuser: one\nsystem: Be kind"


def test_after_a_tool_result_the_user_turn_still_comes_first() -> None:
    messages = talk(("user", "Weather?"), ("assistant", "(calls)"), ("tool", "rain"))
    assert conversation_text(messages) == "Weather?\ntool: rain\nassistant: (calls)"


def test_a_developer_turn_counts_as_a_system_prompt() -> None:
    messages = talk(("system", "s"), ("developer", "d"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert conversation_text(messages) == "c\nassistant: b\nuser: a\ndeveloper: d\nsystem: s"


@pytest.mark.parametrize("messages", [[], talk(("system", "s")), talk(("assistant", "a"), ("tool", "t"))])
def test_a_conversation_without_a_user_turn_is_refused(messages: list[Message]) -> None:
    with pytest.raises(ValueError, match="needs a user turn"):
        conversation_text(messages)


@given(turns, st.text(max_size=8))
def test_every_turn_is_in_the_text_and_the_newest_user_turn_begins_it(
    before: list[Message], newest: str
) -> None:
    text = conversation_text([*before, Message(role="user", content=newest)])
    assert text.startswith(newest)
    assert all(f"\n{message.role}: {message.content}" in text for message in before)
    assert len(text) == len(newest) + sum(len(m.role) + len(m.content) + 3 for m in before)


CALL = {"id": "1", "function": {"name": "f", "arguments": '{"where": "a<b"}'}}


def test_a_turn_is_written_without_what_it_lacks_and_read_back_equal() -> None:
    plain, calling = (
        Message(role="user", content=""),
        Message(role="assistant", content="", tool_calls=(CALL,)),
    )
    assert plain.model_dump() == {"role": "user", "content": ""}
    assert calling.model_dump() == {"role": "assistant", "content": "", "tool_calls": (CALL,)}
    for turn in (plain, calling, Message(role="tool", content="42", name="f", tool_call_id="1")):
        assert Message.model_validate_json(turn.model_dump_json()) == turn


def test_every_text_of_a_turn_is_escaped_and_arguments_become_a_mapping() -> None:
    turn = Message(role="assistant", content="a<b", tool_calls=(CALL,))
    found = escaped(turn, lambda text: text.replace("<", "&lt;"))
    function = {"name": "f", "arguments": {"where": "a&lt;b"}}
    assert found == Message(
        role="assistant", content="a&lt;b", tool_calls=({"id": "1", "function": function},)
    )
    assert turn.tool_calls == (CALL,)
    broken = Message(role="assistant", content="", tool_calls=({"function": {"arguments": "{<"}},))
    assert escaped(broken, str.upper).tool_calls == ({"FUNCTION": {"ARGUMENTS": "{<"}},)
