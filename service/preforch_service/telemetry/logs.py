"""Log lines, as text or as JSON, one per record on stderr, without any text of users.

In:  log records of this package, of uvicorn and of other libraries; Python warnings and exceptions that
     nobody catches.
Out: lines with time, level, logger and message; a record may bring `extra={"facts": {...}}`. What libraries
     put into the messages of exceptions and warnings often quotes the input, so of exceptions only their
     types and the code that raised them are shown, of warnings their category and place.
"""

import json
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, TextIO

LogFormat = Literal["text", "json"]
PACKAGE = "preforch_service"
MAX_CHAIN = 8

logger = logging.getLogger(__name__)


def describe(error: BaseException) -> str:
    """An exception and its causes as frames and types, without their messages. The oldest comes first."""
    return "".join(_describe(error, MAX_CHAIN))


def _describe(error: BaseException, depth: int) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    inside = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    if depth:
        for other in (*filter(None, [before]), *inside):
            yield from _describe(other, depth - 1)
    yield from traceback.format_tb(error.__traceback__)
    # The system's own words for its error numbers; the exception's are free text.
    number = error.errno if isinstance(error, OSError) else None
    yield type(error).__name__ + (f" ({os.strerror(number)})" if isinstance(number, int) else "") + "\n"


class _Formatter(logging.Formatter):
    """Takes a record apart; how the parts are written is up to the format."""

    def parts(self, record: logging.LogRecord) -> tuple[str, str, Mapping[str, object], str | None]:
        """Time, message, facts, and the description of an exception."""
        when = (
            datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
        message = record.getMessage()
        if record.name == "asyncio":
            # Further lines hold representations of tasks and of their exceptions.
            message = message.partition("\n")[0]
        error = record.exc_info[1] if record.exc_info else None
        return when, message, getattr(record, "facts", {}), None if error is None else describe(error)


class TextFormatter(_Formatter):
    """`TIME LEVEL LOGGER: MESSAGE key=value ...`, and a traceback on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        when, message, facts, error = self.parts(record)
        shown = "".join(f" {name}={value}" for name, value in facts.items())
        line = f"{when} {record.levelname} {record.name}: {message}{shown}"
        return line if error is None else f"{line}\n{error.rstrip()}"


class JsonFormatter(_Formatter):
    """One JSON object per line; facts are keys beside `time`, `level`, `logger` and `message`."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        when, message, facts, error = self.parts(record)
        line: dict[str, object] = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": message, **facts} | ({} if error is None else {"exception": error})
        return json.dumps(line, ensure_ascii=False, default=str)


class AccessLog:
    """One line per request, once it has ended."""

    def __init__(self) -> None:
        self._logger = logging.getLogger(f"{PACKAGE}.access")

    def __call__(
        self, *, method: str, route: str, status: int, seconds: float, facts: Mapping[str, object]
    ) -> None:
        """Write the line. `route` is a template, never a path."""
        known = {"method": method, "route": route, "status": status, "seconds": round(seconds, 6), **facts}
        self._logger.info("request", extra={"facts": known})


def configure_logging(log_format: LogFormat, stream: TextIO) -> None:
    """Send all that this process logs to a stream: this package from INFO on, the rest from WARNING on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(PACKAGE).setLevel(logging.INFO)
    # A broken log line (a full disk) would be shown with its arguments.
    logging.raiseExceptions = False
    warnings.showwarning = _log_warning
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    logger.warning("%s at %s:%d", category.__name__, filename, lineno)


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, frames: TracebackType | None
) -> None:
    if error is None or isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), frames)
    else:
        logger.critical("uncaught exception", exc_info=error)


def _log_thread(arguments: threading.ExceptHookArgs) -> None:
    logger.error("uncaught exception in a thread", exc_info=arguments.exc_value)


def _log_unraisable(found: "sys.UnraisableHookArgs") -> None:
    logger.error("an exception that could not be raised", exc_info=found.exc_value)
