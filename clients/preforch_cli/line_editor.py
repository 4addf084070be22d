"""Lines typed at a prompt sign: edited, recalled, and kept from one conversation to the next.

In:  keys. Out: lines, until Ctrl-D.

Python's own readline does it: nothing to install, kept as long as Python is, and with the keys that a user
has set for all programs in ~/.inputrc. Where Python was built without it, lines are read as they come.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

LONGEST_HISTORY = 1000
"""Lines."""
OFF = "off"


def default_history() -> str:
    """$PREFORCH_HISTORY, or the file where a desktop keeps such things."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return os.environ.get("PREFORCH_HISTORY") or str(Path(state) / "preforch" / "chat_history")


def typed_lines(history: str, words: Sequence[str]) -> Iterator[str]:
    """Lines at the sign `> `. `history`: a file, or `off`. `words` complete the first word of a line."""
    try:
        import readline
    except ImportError:
        remember = _forget
    else:
        _complete_with(readline, words)
        remember = _forget if history == OFF else _recall(readline, Path(history))
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        remember()
        yield line


def _forget() -> None:
    """Write nothing down."""


def _complete_with(readline: ModuleType, words: Sequence[str]) -> None:
    def complete(text: str, state: int) -> str | None:
        return next(iter([f"{word} " for word in words if word.startswith(text)][state:]), None)

    readline.set_completer(complete)
    # As it is by default, without the slash that the words begin with.
    readline.set_completer_delims(readline.get_completer_delims().replace("/", ""))
    readline.parse_and_bind("tab: complete")


def _recall(readline: ModuleType, history: Path) -> Callable[[], None]:
    """Read what was typed before. Gives what writes down the line typed last."""
    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        # What people ask is for their own eyes.
        history.touch(mode=0o600)
        readline.read_history_file(history)
    except OSError as error:
        print(f"preforch: no history is kept: {error}", file=sys.stderr)
        return _forget
    readline.set_history_length(LONGEST_HISTORY)

    def remember() -> None:
        # At once, so that a conversation that is killed leaves its lines; a full disk must not end one.
        with suppress(OSError):
            readline.append_history_file(1, history)

    return remember
