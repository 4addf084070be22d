"""Values of columns into conversations, their structure checked.

In:  a string, a transcript ("\\n\\nHuman: ...\\n\\nAssistant: ..."), a list of messages, or one message.
Out: prompts that end where a response begins; responses.

What cannot be read as it is meant is refused: a prompt that holds the response already, a response that is
somebody else's turn, histories that disagree, raw markup taken for text. Each `BadRow` names the setting that
would read it, where there is one.
"""

from typing import Any

from preforch_models.conversation import Message

from preforch_training.data.config import Transcript
from preforch_training.data.rows.markup import (
    HH,
    Marks,
    check_no_list,
    check_no_token,
    check_not_raw,
    is_transcript,
    read_transcript,
    without_end,
)
from preforch_training.data.rows.messages import (
    SYSTEM,
    check_unicode,
    is_visible,
    read_message,
    read_messages,
)
from preforch_training.data.rows.record import BadRow, Turns

FROM_SIDES = "columns.prompt = 'off' takes the prompt from what chosen and rejected have in common"


def conversation_of(value: Any, *, column: str, marks: Marks = None) -> Turns | str:
    """Turns where the value is a conversation, else its text."""
    if isinstance(value, str):
        check_unicode(value, column=column)
        if is_transcript(value, marks):
            return read_transcript(value, marks, column=column)
        text = without_end(value, marks)
        check_not_raw(text, column=column, marks=marks)
        return text
    if isinstance(value, dict):
        return (read_message(value, column=column, number=1),)
    if isinstance(value, list):
        if value and all(isinstance(entry, str) for entry in value):
            raise BadRow(
                f"column {column!r} is a list of texts, of which none says who speaks; where it has one "
                "alone, "
                f"{column}.0 reads it"
            )
        turns = read_messages(value, column=column)
        for turn in turns:
            check_no_token(turn.content, column=column, marks=marks)
        return turns
    raise BadRow(f"column {column!r} must be a string or a list of messages", value)


def prompt_of(value: Any, *, column: str, marks: Marks = None) -> Turns:
    """The prompt of a column: what stands before the response. It may end with an empty assistant turn, which
    the response fills."""
    given = conversation_of(value, column=column, marks=marks)
    if isinstance(given, str):
        check_no_list(given, column=column, marks=marks)
        given = (Message(role="user", content=given),)
    turns = given
    if len(turns) > 1 and turns[-1].role == "assistant" and not (turns[-1].content or turns[-1].tool_calls):
        turns = turns[:-1]
    check_prompt(turns, column=column)
    if turns[-1].role == "assistant":
        raise BadRow(
            f"column {column!r} ends with an assistant turn, which is a response and no part of a prompt; "
            f"where chosen and rejected hold whole conversations, {FROM_SIDES}; of a conversation without "
            f"others, columns = {{prompt = 'off', response = {column!r}}} takes what comes before its "
            "response"
        )
    return turns


def check_prompt(turns: Turns, *, column: str) -> None:
    """Raise BadRow unless there is a user turn and something to read."""
    if not any(turn.role == "user" for turn in turns):
        raise BadRow(f"column {column!r}: a conversation needs a user turn", [turn.role for turn in turns])
    if not any(is_visible(turn.content) for turn in turns if turn.role not in SYSTEM):
        raise BadRow(f"column {column!r} is empty")


def split_conversation(value: Any, *, column: str, marks: Marks = None) -> tuple[Turns, Turns]:
    """Prompt, and the assistant's last turns, of a column with a whole conversation."""
    turns = conversation_of(value, column=column, marks=marks)
    if isinstance(turns, str):
        raise BadRow(
            f"there is no prompt: neither a column 'prompt' nor a whole conversation in column {column!r}; "
            "columns.prompt names the column that has it",
            turns,
        )
    length = len(turns)
    while length and turns[length - 1].role == "assistant":
        length -= 1
    check_prompt(turns[:length], column=column)
    return turns[:length], turns[length:]


def split_off_response(value: Any, *, column: str, marks: Marks = None) -> tuple[Turns, str]:
    """Prompt and response of a column with a whole conversation: its last assistant turns are the
    response."""
    prompt, rest = split_conversation(value, column=column, marks=marks)
    if not rest:
        raise BadRow(f"column {column!r} ends with the turn of the {prompt[-1].role}, not with a response")
    return prompt, join_response(rest, column=column)


def response_of(
    value: Any,
    *,
    column: str,
    prompt: Turns,
    continues: bool = False,
    strict: bool = False,
    marks: Marks = None,
) -> str:
    """The response of a column: a text, or what comes after the prompt in a conversation.

    `continues`: the prompt was a transcript, so that a text goes on with it. `strict`: the prompt is that of
    another side, so that this one's has to be the same in every turn.
    """
    if not isinstance(value, str | list | dict) or not value:
        return check_response(value, column=column)
    if continues and isinstance(value, str):
        return _continued(value, column=column, prompt=prompt, marks=marks)
    given = conversation_of(value, column=column, marks=marks)
    if isinstance(given, str):
        return check_response(given, column=column)
    return response_after(prompt, given, column=column, strict=strict)


def _continued(text: str, *, column: str, prompt: Turns, marks: Marks) -> str:
    """The response in a text after a transcript: it may begin with the transcript or with the assistant's
    mark, and go on for several of its turns."""
    check_unicode(text, column=column)
    transcript = marks if isinstance(marks, Transcript) else HH
    begins = text.lstrip()
    if begins.startswith(transcript.user.strip()):
        turns = read_transcript(text, marks, column=column)
        # HH-RLHF has responses of one turn that begin with the user's mark. Those are kept.
        if len(turns) > 1:
            return response_after(prompt, turns, column=column)
    if begins.startswith(transcript.assistant.strip()):
        text = begins.removeprefix(transcript.assistant.strip())
    response = join_response(
        read_transcript(transcript.assistant + text, marks, column=column), column=column
    )
    check_no_token(response, column=column, marks=marks)
    return response


def response_after(prompt: Turns, turns: Turns, *, column: str, strict: bool = False) -> str:
    """The response in a conversation that begins with the prompt, or holds nothing else than the
    response."""
    if not turns:
        raise BadRow(f"column {column!r} must be a non-empty response", [])
    history = prompt
    if not strict and turns[0].role not in SYSTEM:
        history = tuple(turn for turn in prompt if turn.role not in SYSTEM)
    differs = next((k for k, (a, b) in enumerate(zip(turns, history, strict=False)) if not _same(a, b)), None)
    if differs is None and len(turns) > len(history):
        return join_response(turns[len(history) :], column=column, first=len(history) + 1)
    if all(turn.role == "assistant" for turn in turns):
        if len(turns) > 1:
            raise BadRow(
                f"column {column!r} holds several messages of the assistant and nothing before them: one "
                "response or several? a list of texts holds several",
                [turn.content for turn in turns],
            )
        return join_response(turns, column=column)
    if differs is None:
        raise BadRow(f"column {column!r} ends where its response should begin")
    if turns[differs].role in SYSTEM and not strict:
        raise BadRow(
            f"column {column!r} begins with a system turn that the prompt lacks and that would be lost; "
            f"{FROM_SIDES}"
        )
    others = [turn for turn in turns[differs:] if turn.role != "assistant"]
    if turns[differs].role == "assistant" and others:
        raise BadRow(
            f"turn {turns.index(others[0]) + 1} of column {column!r} is not the assistant's, and the column "
            "does not begin with the prompt",
            others[0].role,
        )
    other = "the first side" if strict else "the prompt"
    raise BadRow(
        f"column {column!r} and {other} are two conversations: turn {differs + 1} differs"
        + ("" if strict else f" (where the prompt's column has a part of the history alone, {FROM_SIDES})"),
        turns[differs].content,
    )


def _same(one: Message, other: Message) -> bool:
    """Whether two turns are the same but for white space around them."""
    if one.is_plain and other.is_plain:
        return (one.role, one.content.strip()) == (other.role, other.content.strip())
    return one.model_copy(update={"content": one.content.strip()}) == other.model_copy(
        update={"content": other.content.strip()}
    )


def join_response(turns: Turns, *, column: str, first: int = 1) -> str:
    """One text of the assistant's last turns. Raises BadRow naming the first that is not the assistant's."""
    for number, turn in enumerate(turns, first):
        if turn.role != "assistant":
            raise BadRow(
                f"turn {number} of column {column!r} is not the assistant's: a response is what the "
                "assistant says after the prompt (histories that are longer than the prompt column: "
                f"{FROM_SIDES})",
                turn.role,
            )
        if turn.tool_calls:
            raise BadRow(f"column {column!r}: the response calls a tool; only texts are compared")
    return check_response("\n\n".join(turn.content.strip() for turn in turns), column=column)


def check_response(text: Any, *, column: str) -> str:
    """The text without white space around it. Raises BadRow where there is nothing to see in it."""
    if not isinstance(text, str) or not is_visible(text):
        raise BadRow(f"column {column!r} must be a non-empty response", text)
    return text.strip()
