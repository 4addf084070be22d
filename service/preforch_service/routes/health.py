"""`GET /livez` and `GET /readyz`."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from preforch_service.gateway import Gateway
from preforch_service.routes.openapi import described, json_answer


def health_router(gateway: Gateway) -> APIRouter:
    """`GET /livez` and `GET /readyz`, which need no key."""
    router = APIRouter()

    @router.get("/livez", **described({200: json_answer("Alive")}))
    async def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    ready = {200: json_answer("Readiness"), 503: json_answer("Readiness", description="Not ready")}

    @router.get("/readyz", **described(ready))
    async def readyz() -> JSONResponse:
        """200 when requests are served: bundle verified, engine reachable, template checked, not draining."""
        blocked = gateway.readiness.blocked
        if blocked is None:
            return JSONResponse({"status": "ready", "bundle": gateway.bundles.current.bundle.revision})
        return JSONResponse({"status": "not ready", "reason": blocked}, status_code=503)

    return router
