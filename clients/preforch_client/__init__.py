"""Python client of a Preference Orchestrator gateway: httpx and pydantic, nothing else of this project."""

from preforch_client.client import DEFAULT_URL, AsyncClient, AsyncStream, Client, Stream
from preforch_client.errors import (
    AccessDenied,
    BadRequest,
    PreferenceError,
    ServiceFailed,
    ServiceUnavailable,
    ServiceUnreachable,
)
from preforch_client.results import (
    ChatChunk,
    ChatCompletion,
    Generation,
    GenerationChunk,
    Preference,
    Recommendation,
    ServedObjective,
    ServedObjectives,
)

__all__ = [
    "DEFAULT_URL",
    "AccessDenied",
    "AsyncClient",
    "AsyncStream",
    "BadRequest",
    "ChatChunk",
    "ChatCompletion",
    "Client",
    "Generation",
    "GenerationChunk",
    "Preference",
    "PreferenceError",
    "Recommendation",
    "ServedObjective",
    "ServedObjectives",
    "ServiceFailed",
    "ServiceUnavailable",
    "ServiceUnreachable",
    "Stream",
]
