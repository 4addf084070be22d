"""Single files that are written whole or not at all; folders are the business of `manifest.writing`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing_file(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `target` that replaces it when the block ends well.

    A kill in the middle leaves at most the temporary file, which the next attempt overwrites. It keeps the
    suffix of the target, because some writers (`numpy.savez`) add their own where it is missing.
    """
    temporary = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            # So that a rename that survives a power cut names a whole file.
            os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a whole UTF-8 file, or nothing."""
    with writing_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
