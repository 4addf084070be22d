"""Conversations that were rendered as one text: read where the marks are known, refused where they are not.

In:  a text, and the marks of a source's transcripts. Out: turns; or `BadRow`, for markup that was taken for
text.

HH-RLHF's marks are known without a setting, and `transcript = "off"` says that no text is a conversation.
"""

import ast
import json
import re
from functools import lru_cache
from typing import Any, Literal

from preforch_models.conversation import Message

from preforch_training.data.config import OFF, Transcript
from preforch_training.data.rows.messages import ROLES
from preforch_training.data.rows.record import BadRow, Turns

Marks = Transcript | Literal["off"] | None
"""Marks of a source's transcripts; None: HH-RLHF's."""
HH = Transcript(user="\n\nHuman:", assistant="\n\nAssistant:")
_MARKUPS = (
    ("### Human:", "### Assistant:"),
    ("### User:", "### Assistant:"),
    ("### Instruction:", "### Response:"),
    ("<|im_start|>user", "<|im_start|>assistant"),
    ("<|start_header_id|>user", "<|start_header_id|>assistant"),
    ("<start_of_turn>user", "<start_of_turn>model"),
    ("<|user|>", "<|assistant|>"),
    ("<|prompter|>", "<|assistant|>"),
    ("<|User|>", "<|Assistant|>"),
    ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
    ("<human>:", "<bot>:"),
    ("<extra_id_1>User", "<extra_id_1>Assistant"),
    ("[INST]", "[/INST]"),
    ("USER:", "ASSISTANT:"),
    ("User:", "Assistant:"),
    ("Human:", "Assistant:"),
)
"""What marks the two speakers in texts that were rendered from a conversation."""
_OPENING = (
    "<|im_start|>",
    "<|start_header_id|>",
    "<|begin_of_text|>",
    "<start_of_turn>",
    "<bos>",
    "[INST]",
    "<s>[INST]",
)
_CLOSING = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>")
"""Control tokens that a rendered turn begins or ends with."""
_LIST_START = re.compile(r"""\s*\[\s*\{\s*["'](role|from|content|value)["']\s*:""")
_FENCE = re.compile(r"```.*?(```|\Z)", re.DOTALL)


def is_transcript(text: str, marks: Marks) -> bool:
    """Whether a text is a conversation in the marks of the source."""
    if marks == OFF:
        return False
    if isinstance(marks, Transcript):
        return _split(marks).search(text) is not None
    return text.startswith(HH.user) or (text.lstrip().startswith("Human:") and HH.assistant in text)


def read_transcript(text: str, marks: Marks, *, column: str) -> Turns:
    """Turns of a conversation in marks; a last turn may be empty.

    What stands before the first mark is the user's where that mark is the assistant's, else a system turn.
    """
    transcript = marks if isinstance(marks, Transcript) else HH
    if transcript is HH:
        text = "\n\n" + text.lstrip()
    before, *parts = _split(transcript).split(text)
    roles = {transcript.user: "user", transcript.assistant: "assistant", transcript.system: "system"}
    turns = []
    if before.strip():
        first = "user" if parts and roles[parts[0]] == "assistant" else "system"
        turns.append((first, before))
    turns += [(roles[mark], content) for mark, content in zip(parts[::2], parts[1::2], strict=True)]
    if isinstance(marks, Transcript):
        _check_no_mark_left(turns, marks, column=column)
    return tuple(
        Message(role=role, content=content)
        for role, content in ((role, without_end(content.strip(), marks)) for role, content in turns)
        if content or role != "system"
    )


def _check_no_mark_left(turns: list[tuple[str, str]], transcript: Transcript, *, column: str) -> None:
    """Raise BadRow where a turn has a part of a mark (a space too many in the setting), or ends within."""
    bare = [mark.strip() for mark in (transcript.user, transcript.assistant, transcript.system) if mark]
    for number, (_, content) in enumerate(turns, 1):
        text = without_end(content.strip(), transcript)
        left = next((mark for mark in (*bare, transcript.end) if mark and mark in text), None)
        if left is not None:
            raise BadRow(f"turn {number} of column {column!r} still has the mark {left!r} in it", text)


def without_end(text: str, marks: Marks) -> str:
    """A text without the mark that ends a turn."""
    end = marks.end if isinstance(marks, Transcript) else ""
    return text.strip().removesuffix(end).strip() if end else text


@lru_cache
def _split(transcript: Transcript) -> re.Pattern[str]:
    marks = [mark for mark in (transcript.user, transcript.assistant, transcript.system) if mark]
    # "SuperUser:" is no mark "User:".
    found = [
        ("(?<!\\w)" if mark[0].isalnum() else "") + re.escape(mark)
        for mark in sorted(marks, key=len, reverse=True)
    ]
    return re.compile(f"({'|'.join(found)})")


def check_not_raw(text: str, *, column: str, marks: Marks) -> None:
    """Raise BadRow for the markup of a conversation that was taken for a text."""
    if marks == OFF:
        return
    if text[-1:] in ("]", "}") and text.lstrip()[:1] in ("[", "{") and ("role" in text or "from" in text):
        found = _parsed(text)
        # Without commas, as numpy prints it, a list cannot be read at all.
        if _are_messages(found) or (found is None and _LIST_START.match(text)):
            raise list_as_text(text, column=column)
    check_no_token(text, column=column, marks=marks)
    if _is_ordinary(text):
        return
    found = _mark_in(_FENCE.sub("", text) if "```" in text else text)
    if found is not None:
        raise _rendered(text, found, column=column)


def check_no_token(text: str, *, column: str, marks: Marks) -> None:
    """Raise BadRow for a text that begins or ends with a control token of a rendered turn."""
    if marks == OFF or ("<" not in text and "INST]" not in text):
        return
    bare = text.strip()
    first = next((mark for mark in _OPENING if bare.startswith(mark)), None)
    token = first or next((mark for mark in _CLOSING if bare.endswith(mark)), None)
    if token is not None:
        raise _rendered(text, token, column=column)


def _rendered(text: str, mark: str, *, column: str) -> BadRow:
    return BadRow(
        f"column {column!r} holds a rendered conversation, or a part of one, as one text "
        f"(mark {mark!r}); transcript = {{user = ..., assistant = ..., system = ..., end = ...}} says "
        "which marks are to be read, 'off' that it is a text all the same",
        text,
    )


def _is_ordinary(text: str) -> bool:
    """Whether a text has surely no mark: most have none, and this is quick to say."""
    return (
        "<" not in text
        and "INST]" not in text
        and "###" not in text
        and (
            ":" not in text
            or not any(mark in text for mark in ("ser:", "SER:", "uman:", "ssistant:", "SSISTANT:"))
        )
    )


def _mark_in(text: str) -> str | None:
    """The mark that gives a rendered conversation away: one of HH's after an empty line, or a pair of marks
    of which one begins the text and both begin lines (or one begins it and none has a colon)."""
    for mark in (HH.user, HH.assistant):
        if mark in text:
            return mark.strip()
    bare = text.strip()
    for user, assistant in _MARKUPS:
        if user in bare and assistant in bare and bare.startswith((user, assistant)):
            lines = all(
                re.search(rf"^[ \t]*{re.escape(mark)}", bare, re.MULTILINE) for mark in (user, assistant)
            )
            if lines or user in ("USER:", "[INST]") or "<" in user or "###" in user:
                return user if bare.startswith(user) else assistant
    return None


def check_no_list(text: str, *, column: str, marks: Marks) -> None:
    """Raise BadRow for a list of texts that was written as one. An answer may be one; nobody asks one."""
    if marks != OFF and text[-1:] == "]" and text.lstrip()[:1] == "[":
        found = _parsed(text)
        if isinstance(found, list) and found and all(isinstance(entry, str) for entry in found):
            raise list_as_text(text, column=column)


def list_as_text(text: str, *, column: str) -> BadRow:
    """The error for a list that was written as text."""
    return BadRow(
        f"column {column!r} is a list written as text; json_columns = [{column!r}] reads it where it is JSON",
        text,
    )


def _parsed(text: str) -> Any:
    """The value that a text writes down in JSON's or Python's way; None where it does not."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _are_messages(value: Any) -> bool:
    if isinstance(value, dict):
        lists = [value[key] for key in ("messages", "conversations", "conversation") if key in value]
        value = lists[0] if lists else [value]
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(entry, dict)
            and ({"role", "content"} <= set(entry) or {"from", "value"} <= set(entry))
            and str(entry.get("role", entry.get("from"))).lower() in ROLES
            for entry in value
        )
    )
