"""One path for `/v1/models` and `/v1/models/`: clients join base URL and path in either way.

Not a redirect: many clients send the request that follows one without its body, or without its key.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from preforch_service.pages.docs import PAGE


class Paths:
    """Takes the slash off the end of a path, before anything looks at it.

    Not of the page at /docs, which names its files relative to its own path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in ("/", f"{PAGE}/"):
            scope["path"] = scope["path"].removesuffix("/")
        await self._app(scope, receive, send)
