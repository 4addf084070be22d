"""Keeps what libraries say while they work out of the terminal and in a file, where it can be looked up.

Errors still end a command with their message; progress bars and our own lines stay on stderr.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from transformers.utils import logging as transformers_logging


class _LazyFile(logging.FileHandler):
    """A log file that is made, with its folder, when the first line is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()


@contextmanager
def library_log(path: Path) -> Iterator[None]:
    """Append Python warnings and log lines of libraries to a file; the bars of loading weights go
    altogether."""
    file = _LazyFile(path)
    root = logging.getLogger()
    # Many libraries give loggers handlers of their own, which write to stderr whatever the root logger does.
    known = [logger for logger in root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    loud = [logger for logger in known if logger.handlers]
    before = [(logger, logger.handlers, logger.propagate) for logger in (root, *loud)]
    for logger in loud:
        logger.handlers, logger.propagate = [], True
    root.handlers = [file]
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            logging.captureWarnings(True)
            yield
    finally:
        logging.captureWarnings(False)
        transformers_logging.enable_progress_bar()
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
        file.close()
