"""`POST /admin/reload`."""

from fastapi import APIRouter

from preforch_service.gateway import Gateway
from preforch_service.routes.openapi import READ_ERRORS, described, json_answer
from preforch_service.wire import Reloaded


def admin_router(gateway: Gateway) -> APIRouter:
    """`POST /admin/reload`, for the admin key alone."""
    router = APIRouter(prefix="/admin")

    @router.post("/reload", **described({200: json_answer("Reloaded")}, errors=(*READ_ERRORS, 403, 422)))
    async def reload() -> Reloaded:
        """Read the bundle at the configured path again.

        422 when it is not usable, and the old one keeps serving.
        """
        return await gateway.reloader.reload()

    return router
