"""`GET /`: the playground, a page that tries the gateway out in a browser.

In:  the files of `playground/`, read once. Out: routes that need no key. The page itself holds no data: what it shows
     it asks the other routes for, with the key that its user types in.
"""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

FOLDER = Path(__file__).parent / "playground"
FILES = {
    "/": ("index.html", "text/html"),
    "/playground/playground.css": ("playground.css", "text/css"),
    "/playground/playground.js": ("playground.js", "text/javascript"),
    "/playground/parts.js": ("parts.js", "text/javascript"),
    "/playground/gateway.js": ("gateway.js", "text/javascript"),
    "/playground/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""By path: the file and its media type. Nothing else of the folder is served."""
POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
        # Browsers that know it refuse to make HTML of text, so that no answer of a model can become markup.
        *("require-trusted-types-for 'script'", "trusted-types 'none'"),
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, but asked for again each time: page and script of different versions must not meet.
    "Cache-Control": "no-cache",
}


def add_file(router: APIRouter, path: str, file: Path, *, media_type: str) -> None:
    """One route for one file; a browser that has it already gets a 304."""
    content = file.read_bytes()
    headers = HEADERS | {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}

    async def static(request: Request) -> Response:
        known = request.headers.get("If-None-Match", "")
        # A proxy that compresses makes the tag a weak one.
        if headers["ETag"] in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    router.add_api_route(path, static, methods=["GET", "HEAD"], name=file.stem, include_in_schema=False)


def playground_router() -> APIRouter:
    """The routes."""
    router = APIRouter()
    for path, (name, media_type) in FILES.items():
        add_file(router, path, FOLDER / name, media_type=media_type)
    return router
