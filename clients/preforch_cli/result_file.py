"""The results of lines, as JSON lines in a file that only grows: what is in it is done.

In:  outcomes of lines, in order; what an earlier run has left.
Out: one line each, `{"line": 1, "hash": "...", ...}`. A write that is cut short leaves at most one line
     without its end; the next run removes it.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from preforch_cli.prompt_lines import PromptLine


def result_line(line: PromptLine, outcome: Mapping[str, object]) -> bytes:
    """One line of results, with its end."""
    return json.dumps({"line": line.number, "hash": line.hash, **outcome}).encode("ascii") + b"\n"


@contextmanager
def growing_file(path: Path) -> Iterator[BinaryIO]:
    """The file, made where it is missing. Raises ValueError where another process writes to it."""
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process is writing to {path}") from error
        yield file


def skip_done(file: BinaryIO, lines: Iterator[PromptLine]) -> tuple[int, Iterator[PromptLine]]:
    """How many lines the file has results of, and the lines that are left.

    Raises ValueError where a result is not that of its line, and leaves the file as it is.
    """
    done = size = 0
    file.seek(0)
    for result in file:
        line = next(lines, None)
        whole = result.endswith(b"\n")
        if line is None or not _belongs(result, line, whole=whole):
            which = "any line" if line is None else f"line {line.number}"
            raise ValueError(
                f"{file.name}, line {done + 1}: not the result of {which} of the input: the input has "
                "changed, or the file holds something else; give another --out, or remove it to start anew"
            )
        if not whole:
            file.truncate(size)
            return done, chain([line], lines)
        done += 1
        size += len(result)
    return done, lines


def _belongs(result: bytes, line: PromptLine, *, whole: bool) -> bool:
    """Whether a result begins as that of this line does; one that breaks off may do so within that."""
    beginning = result_line(line, {}).removesuffix(b"}\n")
    return result.startswith(beginning) or (not whole and beginning.startswith(result))
