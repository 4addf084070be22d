"""When a request is sent again, and after how long.

In:  how a try ended: the head of an answer, or httpx's transport error.
Out: seconds to wait before the next try; None where this is how it ends.

Sent again are requests whose answer has not begun: no connection, one that closed instead of answering, 429
and 503. Never sent again are those whose answer has begun, and those that waited for it in vain: the gateway
may be at work on them still, and would be twice.
"""

import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx

DEFAULT_RETRIES = 2
FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0
"""Seconds before the first of the further tries, doubled for each one after it, up to the second number."""
JITTER = 0.25
"""Share that is added at most, so that those who were turned away together do not come back together."""
LONGEST_RETRY_AFTER = 60.0
"""Seconds. Who is told to wait for longer hears of it (`retry_after` of the error) and decides."""

_STATUSES = frozenset({429, 503})
_ERRORS = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError)


class Tries:
    """Counts the tries of one request. Raises ValueError for a negative number of retries."""

    def __init__(self, retries: int) -> None:
        self._left = checked_retries(retries)
        self._made = 0

    def wait_after_error(self, error: httpx.TransportError) -> float | None:
        """Seconds until the next try of a request that got no answer."""
        return self._next(None) if isinstance(error, _ERRORS) else None

    def wait_after_answer(self, response: httpx.Response) -> float | None:
        """Seconds until the next try of a request with this answer, of which only the head is looked at."""
        return self._next(retry_after(response.headers)) if response.status_code in _STATUSES else None

    def _next(self, asked: float | None) -> float | None:
        if self._made == self._left or (asked is not None and asked > LONGEST_RETRY_AFTER):
            return None
        self._made += 1
        return delay(self._made, asked)


def checked_retries(retries: int) -> int:
    """The number as it is. Raises ValueError where it is negative."""
    if retries < 0:
        raise ValueError(f"max_retries is {retries}; it must be 0 or more")
    return retries


def delay(retry: int, asked: float | None = None) -> float:
    """Seconds before a retry, the first of which is 1; at least what the answer asked for."""
    # An exponent without bound would overflow for a patient caller.
    backoff = min(FIRST_DELAY * 2.0 ** min(retry - 1, 32), LONGEST_DELAY)
    return max(backoff, asked or 0.0) * (1 + random.uniform(0, JITTER))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the header Retry-After asks for, as a number or as a date (RFC 9110, 10.2.3).

    A date is taken by the server's own clock where the answer has one. None where nothing can be read.
    """
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        then, now = _timestamp(value), _timestamp(headers.get("Date", ""))
        return None if then is None else max(0.0, then - (time.time() if now is None else now))
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
