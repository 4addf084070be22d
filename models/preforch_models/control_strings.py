"""Control strings: the special tokens of a policy's tokenizer, which no user's text may become.

In:  the strings. Out: the first of them in a text, and the text with all of them defused.
"""

import re
from collections.abc import Iterable

JOINER = "\u2060"


class ControlStrings:
    """Finds and defuses control strings (special tokens of a policy's tokenizer) in a user's text.

    Escaping puts a word joiner (U+2060) after the first character, so that the text still reads the same and
    no tokenizer sees the token in it. A special token of one character (some tokenizers pad with `!`) is
    ordinary text, and cannot be split; it is left alone. Raises ValueError for a control string that holds
    the joiner itself. Time is linear in the text, whatever the text: a user chooses it.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        long = {s for s in strings if len(s) > 1}
        joined = sorted(s for s in long if JOINER in s)
        if joined:
            raise ValueError(f"control string {joined[0]!r} holds U+2060, which escaping adds")
        self.longest = max(map(len, long), default=1)
        """Characters of the longest."""
        pattern = _any_of(long) if long else r"(?!)"
        self._found = re.compile(pattern)
        # The empty place after the first character. Looking around finds also those that begin inside
        # another one: `abab` is in `ababab` twice.
        self._places = re.compile(rf"(?<=(?={pattern}).)", re.DOTALL)

    def find(self, text: str) -> str | None:
        """The first control string in the text (the longest that starts there), or None."""
        match = self._found.search(text)
        return match.group() if match else None

    def escape(self, text: str) -> str:
        """The text with every control string defused. Escaping twice changes nothing more."""
        return self._places.sub(JOINER, text)


def _any_of(strings: set[str]) -> str:
    """A pattern for any of the strings, the longest first, that branches on one character at a time.

    A plain alternation tries every string at every place: seconds for a megabyte of `<` and a thousand
    special tokens.
    """
    tails: dict[str, set[str]] = {}
    for string in strings - {""}:
        tails.setdefault(string[0], set()).add(string[1:])
    branches = [
        re.escape(first) + (_any_of(rest) if rest != {""} else "") for first, rest in sorted(tails.items())
    ]
    return f"(?:{'|'.join(branches)}){'?' if '' in strings else ''}"
