"""`GET /docs`: the OpenAPI document in Swagger UI, which is served from here and not by a stranger's server.

In:  the files of Swagger UI, as the package fastapi-offline carries them. Out: routes that need no key.
"""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html

from preforch_service.pages.static_files import NOBODY_ELSE, StaticFile, static_router

PAGE = "/docs"
FILES = {
    "/docs/swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript"),
    "/docs/swagger-ui.css": ("swagger-ui.css", "text/css"),
}
"""By path: the file of the package and its media type."""
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def docs_router(title: str) -> APIRouter:
    """The routes. Addresses are relative, so that the page works below a path of a proxy, too."""
    page = bytes(
        get_swagger_ui_html(
            openapi_url="openapi.json",
            title=title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="playground/icon.svg",
        ).body
    )
    policy = policy_of(page)
    static = files("fastapi_offline") / "static"
    found = {
        path: StaticFile((static / name).read_bytes(), kind, policy) for path, (name, kind) in FILES.items()
    }
    return static_router({PAGE: StaticFile(page, "text/html", policy), **found})


def policy_of(page: bytes) -> str:
    """Swagger UI makes styles and draws images of its own; of inline scripts only the page's runs."""
    (script,) = _INLINE_SCRIPT.findall(page)
    digest = b64encode(sha256(script).digest()).decode()
    return "; ".join(
        (
            *(
                "default-src 'none'",
                f"script-src 'self' 'sha256-{digest}'",
                "style-src 'self' 'unsafe-inline'",
            ),
            *("img-src 'self' data:", "connect-src 'self'"),
            *NOBODY_ELSE,
        )
    )
