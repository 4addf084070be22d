"""A route without FastAPI's part of a request.

Our functions take the request and make the response themselves.

In:  a function `(Request) -> Response`. Out: a route of it that is in the OpenAPI document like any other.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class PlainRoute(APIRoute):
    """No parameters to look for, no dependencies to solve, no result to serialise."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function itself."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler
