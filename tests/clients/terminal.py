"""A command in a terminal: keys in, what is shown out."""

import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from processes import wait_until

UP, HOME = "\x1b[A", "\x01"


@dataclass
class Terminal:
    """`text` is all that was shown so far; a thread reads it: the process must not wait for a reader."""

    process: "subprocess.Popen[bytes]"
    keyboard: int
    text: str = ""
    _seen: int = field(default=0, repr=False)

    def type(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    def wait_for(self, text: str) -> str:
        """What is shown up to this text, since the last time."""
        assert wait_until(lambda: text in self.text[self._seen :]), self.text
        start, self._seen = self._seen, self.text.index(text, self._seen) + len(text)
        return self.text[start : self._seen]

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def read_all(self) -> None:
        while True:
            try:
                got = os.read(self.keyboard, 65536)
            except OSError:  # the process has ended
                return
            if not got:
                return
            self.text += got.decode()


@contextmanager
def terminal(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    """`preforch ARGUMENTS` in a terminal of 24 by 100, which is closed at the end."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    # What a shell starts in the background ignores the signal, and so would this.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "preforch_cli", *arguments]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", **(environment or {})},
    ) as process:
        os.close(theirs)
        shown = Terminal(process, ours)
        thread = threading.Thread(target=shown.read_all)
        thread.start()
        try:
            yield shown
        finally:
            process.kill()
            process.wait()
            thread.join()
            os.close(ours)
