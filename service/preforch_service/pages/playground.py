"""`GET /`: the playground, a page that tries the gateway out in a browser.

In:  the files of `playground/`, read once. Out: routes that need no key. The page itself holds no data: what
     it shows it asks the other routes for, with the key that its user types in.
"""

from pathlib import Path

from fastapi import APIRouter

from preforch_service.pages.static_files import NOBODY_ELSE, StaticFile, static_router

FOLDER = Path(__file__).parent / "static"
FILES = {
    "/": ("index.html", "text/html"),
    "/playground/playground.css": ("playground.css", "text/css"),
    "/playground/playground.js": ("playground.js", "text/javascript"),
    "/playground/parts.js": ("parts.js", "text/javascript"),
    "/playground/gateway.js": ("gateway.js", "text/javascript"),
    "/playground/code.js": ("code.js", "text/javascript"),
    "/playground/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""By path: the file and its media type. Nothing else of the folder is served."""
POLICY = "; ".join(
    (
        *(
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
        ),
        *NOBODY_ELSE,
        # Browsers that know it refuse to make HTML of text, so that no answer of a model can become markup.
        *("require-trusted-types-for 'script'", "trusted-types 'none'"),
    )
)


def playground_router() -> APIRouter:
    """GET and HEAD of every path in FILES."""
    return static_router(
        {path: StaticFile((FOLDER / name).read_bytes(), kind, POLICY) for path, (name, kind) in FILES.items()}
    )
