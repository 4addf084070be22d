"""The ASGI application: routes, and the one handler that turns exceptions into HTTP."""

from importlib import metadata

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from preforch_service.edge import Edge
from preforch_service.errors import ApiError, error_response, from_status
from preforch_service.gateway import Gateway
from preforch_service.openapi import complete
from preforch_service.routes_generate import generate_router
from preforch_service.routes_health import health_router
from preforch_service.routes_openai import openai_router
from preforch_service.routes_weights import weights_router


async def on_api_error(_request: Request, error: Exception) -> Response:
    """Errors of ours."""
    assert isinstance(error, ApiError)
    return error_response(error)


async def on_http_error(_request: Request, error: Exception) -> Response:
    """Errors of the router: no such path, wrong method."""
    assert isinstance(error, HTTPException)
    response = error_response(from_status(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


def operation_id(route: APIRoute) -> str:
    """The name of the route's function: these differ."""
    return route.name


def create_app(gateway: Gateway) -> FastAPI:
    """The application over the given parts."""
    app = FastAPI(
        title="Preference Orchestrator",
        description="Recommends weights for objectives, and lets a language model answer accordingly.",
        version=metadata.version("preference-orchestrator"),
        generate_unique_id_function=operation_id,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(health_router(gateway))
    app.include_router(weights_router(gateway))
    if gateway.engine is not None:
        app.include_router(generate_router(gateway, gateway.engine))
        app.include_router(openai_router(gateway, gateway.engine))
    # FastAPI gives out the document that it finds here.
    app.openapi_schema = complete(app.openapi(), gateway.bundle.names)
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_middleware(
        Edge,
        hosts=gateway.settings.hosts,
        readiness=gateway.readiness,
        metrics=gateway.metrics,
        in_flight=gateway.in_flight,
    )
    return app
