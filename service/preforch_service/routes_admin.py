"""`POST /admin/reload`."""

from fastapi import APIRouter

from preforch_service.gateway import Gateway
from preforch_service.wire import Reloaded


def admin_router(gateway: Gateway) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/admin")

    @router.post("/reload")
    async def reload() -> Reloaded:
        """Read the bundle at the configured path again; 422 when it is not usable, and the old one keeps serving."""
        return await gateway.reloader.reload()

    return router
