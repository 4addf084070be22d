"""Who may pass: API keys on every route but the open ones, the admin key on `/admin/*`, a rate limit per key.

In:  the head of a request (the body has not been read). Out: None, or the error to answer with;
     `scope["state"]["caller"]` is the `ApiKey` of the request, None where keys are not asked for.
"""

import math
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import Scope

from preforch_service.errors import ApiError, Forbidden, RateLimited, Unauthorized
from preforch_service.keys import ADMIN_VARIABLE, ApiKey, Keys
from preforch_service.pages.docs import FILES as DOCS
from preforch_service.pages.docs import PAGE
from preforch_service.pages.playground import FILES as PLAYGROUND

OPEN = frozenset({"/livez", "/readyz", "/openapi.json", PAGE, *DOCS, *PLAYGROUND})
"""Paths that need no key. Whatever is not listed needs one, paths that do not exist included."""
ADMIN = "/admin"


def given_key(headers: Headers) -> str | None:
    """The key that a client sent: `Authorization: Bearer KEY` or, without that header, `X-API-Key: KEY`."""
    authorization = headers.get("authorization")
    if authorization is None:
        return headers.get("x-api-key")
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


class Access:
    """Checks keys and counts requests per key."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def refusal(self, scope: Scope) -> ApiError | None:
        """Why a request may not pass, or None."""
        path: str = scope["path"]
        state = scope.setdefault("state", {})
        state["caller"] = None
        key = given_key(Headers(scope=scope))
        if path == ADMIN or path.startswith(f"{ADMIN}/"):
            return self._admin_refusal(key)
        if path in OPEN or not self._keys.keys:
            return None
        caller = None if key is None else self._keys.find(key)
        if caller is None:
            return _unknown(key)
        state["caller"] = caller
        return await self._over_rate(caller)

    def _admin_refusal(self, key: str | None) -> ApiError | None:
        if self._keys.admin is None:
            configured = f"({ADMIN_VARIABLE}, or [admin] in --api-keys)"
            message = f"admin routes are closed: no admin key is configured {configured}"
            return Forbidden(message, code="admin_closed")
        return None if key is not None and self._keys.is_admin(key) else _unknown(key)

    async def _over_rate(self, caller: ApiKey) -> ApiError | None:
        if caller.requests_per_minute is None:
            return None
        rate = RateLimitItemPerMinute(caller.requests_per_minute)
        if await self._limiter.hit(rate, caller.name):
            return None
        reset = (await self._limiter.get_window_stats(rate, caller.name)).reset_time
        message = f"API key {caller.name!r} is limited to {caller.requests_per_minute} requests per minute"
        return RateLimited(message, retry_after=max(1, math.ceil(reset - time.time())))


def _unknown(key: str | None) -> ApiError:
    sent = "no API key was sent" if key is None else "the API key is not valid here"
    return Unauthorized(f"{sent}; send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
