"""Server-sent events.

In:  the bytes of a stream, cut anywhere.
Out: the data of each event; the end is `[DONE]`.

Lines are cut in bytes, not in text: JSON may hold U+2028 and its like, where `str.splitlines` would cut too.
"""

import re
from collections.abc import Iterator

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a CR that comes last may be half of a CRLF


class EventDecoder:
    """Incremental decoder; `done` tells a finished stream from one that broke off."""

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Data of the events that these bytes complete; nothing after `[DONE]`."""
        *lines, self._rest = _LINE_END.split(self._rest + received)
        for line in lines:
            event = self._take(line)
            if event == b"[DONE]":
                self.done = True
            if event is not None and not self.done:
                yield event

    def _take(self, line: bytes) -> bytes | None:
        """Collect a data line; an empty line completes the event. Comments and other fields are skipped."""
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            return None
        event, self._data = b"\n".join(self._data), []
        return event or None
