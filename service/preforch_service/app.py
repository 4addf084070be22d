"""The ASGI application: routes, and the one handler that turns exceptions into HTTP."""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from importlib import metadata

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute

from preforch_service.errors import ApiError, BadRequest, error_response, from_status
from preforch_service.gateway import Gateway
from preforch_service.middleware.access import Access
from preforch_service.middleware.edge import Edge
from preforch_service.middleware.observer import Observer
from preforch_service.middleware.paths import Paths
from preforch_service.pages.docs import docs_router
from preforch_service.pages.playground import playground_router
from preforch_service.routes.admin import admin_router
from preforch_service.routes.generate import generate_router
from preforch_service.routes.health import health_router
from preforch_service.routes.messages import messages_router
from preforch_service.routes.models import models_router
from preforch_service.routes.openai import openai_router
from preforch_service.routes.openapi import complete
from preforch_service.routes.responses import responses_router
from preforch_service.routes.weights import weights_router
from preforch_service.telemetry.logs import AccessLog
from preforch_service.telemetry.metrics import DISTRIBUTION

EXPOSED = (
    *("X-Preference-Weights", "X-Preference-Source", "X-Preference-Bundle"),
    *("X-Preference-Applied", "X-Preference-Preset", "X-Preference-Ignored"),
    *("X-Request-Id", "Retry-After", "WWW-Authenticate"),
)
"""Response headers that pages of other origins may read."""


async def on_api_error(request: Request, error: Exception) -> Response:
    """Errors that our own code has raised, with their status and `param`."""
    assert isinstance(error, ApiError)
    return error_response(error, request.url.path)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Errors of the router: no such path, wrong method.

    OPTIONS is a method of every path that there is, and `OPTIONS *` asks for those of all (RFC 9110, 9.3.7).
    """
    assert isinstance(error, HTTPException)
    if request.method == "OPTIONS" and request.scope["path"] == "*":
        return _allowed({method for route in _api_routes(request.app.routes) for method in route.methods})
    response = error_response(from_status(error.status_code, error.detail), request.url.path)
    response.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _allowed(response.headers["Allow"].split(", "))
        if request.method == "OPTIONS":
            return allowed
        response.headers["Allow"] = allowed.headers["Allow"]
    return response


def _allowed(methods: Iterable[str]) -> Response:
    """The answer to OPTIONS, itself one of the methods."""
    allow = ", ".join(sorted({*methods, "OPTIONS"}))
    return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": allow})


def _api_routes(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    return (route for route in routes if isinstance(route, APIRoute))


async def on_invalid(request: Request, error: Exception) -> Response:
    """Parameters that FastAPI checks by itself. The routes read bodies themselves, so this is rare."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or None
    return error_response(from_status(422, f"{where}: {first['msg']}", param=where), request.url.path)


class Cors(CORSMiddleware):
    """Starlette's, but what it refuses has the shape of every other error."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks whether a page may call."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        refused = error_response(BadRequest(bytes(response.body).decode(), code="cors_refused"))
        headers = response.headers.items()
        refused.headers.update({name: value for name, value in headers if not name.startswith("content-")})
        return refused


def operation_id(route: APIRoute) -> str:
    """The name of the route's function: these differ."""
    return route.name


def add_head(routes: Iterable[BaseRoute]) -> None:
    """HEAD wherever there is GET; uvicorn leaves the body out.

    To be called when the OpenAPI document has been made, which would list it as an operation of its own.
    """
    for route in _api_routes(routes):
        if "GET" in route.methods:
            route.methods.add("HEAD")


def create_app(gateway: Gateway) -> FastAPI:
    """Routes and middleware; the routes that need an engine only where there is one."""
    app = FastAPI(
        title="Preference Orchestrator",
        description="Recommends weights for objectives, and lets a language model answer accordingly.",
        version=metadata.version(DISTRIBUTION),
        generate_unique_id_function=operation_id,
        # FastAPI's own page loads Swagger UI from a stranger's server.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    # In the order in which a path is looked for: what is asked most comes first.
    if gateway.engine is not None:
        app.include_router(openai_router(gateway, gateway.engine))
        app.include_router(responses_router(gateway, gateway.engine))
        app.include_router(messages_router(gateway, gateway.engine))
        app.include_router(generate_router(gateway, gateway.engine))
        app.include_router(models_router(gateway, gateway.engine))
    app.include_router(weights_router(gateway))
    app.include_router(health_router(gateway))
    app.include_router(admin_router(gateway))
    app.include_router(playground_router())
    app.include_router(docs_router(app.title))
    # FastAPI gives out the document that it finds here.
    app.openapi_schema = complete(app.openapi(), gateway.bundles.current.bundle.names, gateway.settings)
    add_head(app.routes)
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_middleware(
        Edge,
        hosts=gateway.settings.hosts,
        access=Access(gateway.settings.keys),
        readiness=gateway.readiness,
        metrics=gateway.metrics,
        in_flight=gateway.in_flight,
    )
    if gateway.settings.cors_origins:
        # Outermost: a browser asks without a key whether it may send one, and must be able to read every
        # error.
        app.add_middleware(
            Cors,
            allow_origins=gateway.settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    app.add_middleware(
        Observer,
        metrics=gateway.metrics,
        access_log=AccessLog() if gateway.settings.access_log else None,
        tracing=gateway.tracing,
    )
    # The last one added is the outermost.
    app.add_middleware(Paths)
    return app
