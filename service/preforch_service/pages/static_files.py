"""Files for browsers: pages, scripts and styles that hold no data and need no key.

In:  bytes, read once. Out: routes that answer GET and HEAD, and 304 where the browser has the file already.

Not starlette's StaticFiles: its ETag is made of time and size of a file, and wheels may give files of all
versions one time, so that a browser could keep an old script beside a new page. It guesses media types by
tables of the machine, which `nosniff` makes fatal where they are wrong, and it cannot hold the page of /docs,
which is made.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

NOBODY_ELSE = ("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")
"""Rules of a Content-Security-Policy that every page has."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, but asked for again each time: page and script of different versions must not meet.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class StaticFile:
    """What one path answers. `policy` is its Content-Security-Policy."""

    content: bytes
    media_type: str
    policy: str


def static_router(files: Mapping[str, StaticFile]) -> APIRouter:
    """GET and HEAD of each path, answered from memory."""
    router = APIRouter()
    for path, file in files.items():
        _add(router, path, file)
    return router


def _add(router: APIRouter, path: str, file: StaticFile) -> None:
    tag = f'"{hashlib.sha256(file.content).hexdigest()[:32]}"'
    headers = HEADERS | {"Content-Security-Policy": file.policy, "ETag": tag}

    async def static(request: Request) -> Response:
        known = request.headers.get("If-None-Match", "")
        # A proxy that compresses makes the tag a weak one.
        if tag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    router.add_api_route(path, static, methods=["GET", "HEAD"], name=path, include_in_schema=False)
