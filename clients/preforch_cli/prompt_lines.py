"""Files of prompts, one a line: plain text, or JSON objects with a `prompt` or `messages`.

In:  bytes of a file or of standard input.
Out: a `PromptLine` for each line that is not blank, bad ones included.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Format: TypeAlias = Literal["text", "jsonl"]
FORMATS: tuple[Format, ...] = ("text", "jsonl")
Content: TypeAlias = str | list[dict[str, object]]
"""A prompt, or a conversation in OpenAI's chat format."""

ALLOWED = 'allowed is {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class PromptLine:
    """A line: its number in the file, from 1; the hash of its bytes, line end left out; what it holds.

    A ValueError in the place of the content says what is wrong with the line.
    """

    number: int
    hash: str
    content: Content | ValueError


def format_of(name: str) -> Format:
    """Told by the file's name; text where it tells nothing, as that of standard input."""
    return "jsonl" if Path(name).suffix == ".jsonl" else "text"


def read_lines(source: Iterable[bytes], form: Format) -> Iterator[PromptLine]:
    """The lines of a source, in order. Blank ones are counted and left out."""
    for number, raw in enumerate(source, start=1):
        line = raw.removeprefix(BYTE_ORDER_MARK) if number == 1 else raw
        if line.strip():
            # \n and \r\n end a line; all else is part of it.
            yield _read(number, line.removesuffix(b"\n").removesuffix(b"\r"), form)


def _read(number: int, line: bytes, form: Format) -> PromptLine:
    content: Content | ValueError
    try:
        text = line.decode("utf-8")
        content = text if form == "text" else _content(text)
    except UnicodeDecodeError as error:
        content = ValueError(
            f"is not UTF-8: byte {error.object[error.start]:#04x} in column {error.start + 1}"
        )
    except ValueError as error:
        content = error
    return PromptLine(number, hashlib.sha256(line).hexdigest()[:16], content)


def _content(text: str) -> Content:
    """What a JSON line holds; its other fields are the user's own. Raises ValueError."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}; {ALLOWED}") from error
    if not isinstance(row, dict):
        raise ValueError(f"is not an object, got {type(row).__name__}; {ALLOWED}")
    prompt, messages = row.get("prompt"), row.get("messages")
    if (prompt is None) == (messages is None):
        raise ValueError(f"holds {'neither' if prompt is None else 'both'} of prompt and messages; {ALLOWED}")
    if messages is None and not (isinstance(prompt, str) and prompt.strip()):
        raise ValueError(f"prompt is not a text, or an empty one; {ALLOWED}")
    if prompt is None and not (
        isinstance(messages, list) and all(isinstance(turn, dict) for turn in messages)
    ):
        raise ValueError(f"messages is not a list of objects; {ALLOWED}")
    content: Content = row["prompt"] if messages is None else messages
    try:
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError as error:
        # Half of a surrogate pair, NaN: Python reads what no request can carry.
        raise ValueError(f"cannot be sent: {error}; {ALLOWED}") from error
    return content
