"""Fields that change neither the prompt nor the answer, and fields that nobody knows: dropped, and named.

In:  the fields of one request as they are found. Out: the response header that names them, and labels for a
     metric. Nothing that is dropped reaches the engine; where the operator wants them refused, a 400.
"""

import re
from typing import Literal

from prometheus_client import Counter

from preforch_service.errors import BadRequest

UnknownFields = Literal["ignore", "reject"]
IGNORED_HEADER = "X-Preference-Ignored"
"""Only on answers to requests of which something was dropped."""

IGNORED = frozenset(
    {
        *("store", "metadata", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
        *("promptCacheKey", "promptCacheRetention", "promptCacheOptions"),
        *("modalities", "prediction", "verbosity", "best_of"),
        *("cache_control", "include_obfuscation"),
        # Of Responses: a long conversation stays whole or is refused, and no tools run on servers.
        *("context_management", "max_tool_calls", "reasoning.encrypted_content", "encrypted_content"),
        *("summary", "generate_summary", "phase", "client_metadata"),
        # Of Messages.
        *("speed", "diagnostics", "inference_geo", "betas", "user_profile_id", "workspace_id"),
        *("billing_policy", "x-anthropic-billing-header", "budget_tokens", "is_error", "citations"),
        *("allowed_callers", "eager_input_streaming"),
    }
)
"""Known ones, wherever they appear. Of `modalities` and `best_of` only the values that change nothing."""
OTHER = "other"
MOST_NAMES = 20
LONGEST_NAME = 48
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


class Ignored:
    """What was dropped of one request."""

    def __init__(self, mode: UnknownFields) -> None:
        self._mode = mode
        self._found: dict[tuple[str, str], None] = {}

    def drop(self, name: str, *, param: str, place: str = "") -> None:
        """Note one field. `place`: where it was, a fixed word. Raises BadRequest where none may be."""
        if self._mode == "reject":
            known = "it changes nothing here" if name in IGNORED else "unknown field"
            message = f"field {name[:LONGEST_NAME]!r} is not allowed: {known}"
            raise BadRequest(message, param=param[:200], code="field_not_allowed")
        self._found[place, name] = None

    def headers(self) -> dict[str, str]:
        """The header, empty where nothing was dropped.

        Users choose the names: only letters, digits, `_` and `-` of them are shown, and not too many.
        """
        names = dict.fromkeys(_path(place, _spelt(name)) for place, name in self._found)
        shown = list(names)[:MOST_NAMES] + (["..."] if len(names) > MOST_NAMES else [])
        return {IGNORED_HEADER: ", ".join(shown)} if shown else {}

    def count(self, counter: Counter) -> None:
        """Count every field once; unknown names share the label `other`, at each place."""
        for label in {_path(place, name if name in IGNORED else OTHER) for place, name in self._found}:
            counter.labels(label).inc()


def _path(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _spelt(name: str) -> str:
    shown = _UNSAFE.sub("_", name[:LONGEST_NAME])
    return shown + "..." if len(name) > LONGEST_NAME else shown or "_"
