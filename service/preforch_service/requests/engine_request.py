"""From a user's request to the engine's.

In:  the parsed JSON body of a chat or a completion, and weights from header and model alias.
Out: a `Prepared` text for the orchestrator; then, with the decision, the JSON body for the engine.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from preforch_models.weights import Weights

from preforch_service.conditioning import Conditioner
from preforch_service.errors import BadRequest, NotFound
from preforch_service.recommendation.weighing import HEADER, Asked, combine_carriers
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.fields import (
    CHAT_FORWARDED,
    CHAT_REFUSED,
    COMPLETION_FORWARDED,
    COMPLETION_REFUSED,
    CONSTRAINTS,
    TEMPLATE_SEES,
    WEIGHTS_FIELD,
    check_fields,
    check_template_kwargs,
)
from preforch_service.requests.messages import guard_messages, orchestrator_text, read_messages


@dataclass(frozen=True)
class Prepared:
    """A checked request. `finish` makes the engine's body of it, in which the policy finds the weights."""

    text: str
    asked: Asked | None
    finish: Callable[[Weights], dict[str, Any]]


def encode_json(body: Mapping[str, object]) -> bytes:
    """The bytes for the engine. Raises BadRequest on NaN and infinities, which JSON cannot carry."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError as error:
        raise BadRequest(f"the body holds a number that is not finite: {error}") from error


class Preparer:
    """Checks requests and rewrites them for one policy."""

    def __init__(
        self,
        conditioner: Conditioner,
        guard: ControlGuard,
        *,
        objectives: tuple[str, ...],
        model: str,
        template_kwargs: tuple[str, ...],
    ) -> None:
        self._conditioner = conditioner
        self._guard = guard
        self._objectives = objectives
        self._model = model
        self._template_kwargs = template_kwargs

    def chat(
        self, body: dict[str, Any], header: str | None, *, weights_param: str = WEIGHTS_FIELD
    ) -> Prepared:
        """A chat completion. Raises BadRequest."""
        check_fields(body, forwarded=CHAT_FORWARDED, refused=CHAT_REFUSED)
        messages = read_messages(body.get("messages"))
        kwargs = check_template_kwargs(body.get("chat_template_kwargs"), allowed=self._template_kwargs)
        clean = self._clean(body) | {"messages": guard_messages(messages, self._guard)}
        clean["chat_template_kwargs"] = kwargs
        clean |= self._guarded(clean, *TEMPLATE_SEES, *CONSTRAINTS)

        def finish(weights: Weights) -> dict[str, Any]:
            return self._conditioner.chat(clean, weights)

        return Prepared(orchestrator_text(messages), self._asked(body, header, weights_param), finish)

    def completion(self, body: dict[str, Any], header: str | None) -> Prepared:
        """A completion of one string prompt. Raises BadRequest."""
        check_fields(body, forwarded=COMPLETION_FORWARDED, refused=COMPLETION_REFUSED)
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise BadRequest("prompt must be one string that is not empty", param="prompt")
        clean = self._clean(body) | {"prompt": self._guard.text(prompt, "prompt")}
        clean |= self._guarded(clean, *CONSTRAINTS)

        def finish(weights: Weights) -> dict[str, Any]:
            return self._conditioner.completion(clean, weights)

        return Prepared(prompt, self._asked(body, header), finish)

    def _guarded(self, body: Mapping[str, Any], *names: str) -> dict[str, Any]:
        """Those of the fields that are there, without control strings."""
        structure = body.get("structured_outputs")
        if isinstance(structure, Mapping) and isinstance(structure.get("json"), str):
            # JSON in a string has more ways to write a character than a check for strings sees.
            raise BadRequest("structured_outputs.json must be an object", param="structured_outputs.json")
        return {name: self._guard.value(body[name], name) for name in names if name in body}

    def _clean(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in body.items() if key != WEIGHTS_FIELD} | {"model": self._model}

    def _asked(self, body: Mapping[str, Any], header: str | None, param: str = WEIGHTS_FIELD) -> Asked | None:
        carriers = {param: body.get(WEIGHTS_FIELD), HEADER: header, "model": self._alias(body.get("model"))}
        return combine_carriers(carriers, self._objectives)

    def _alias(self, model: object) -> str | None:
        """The weights in `NAME@helpful=0.7,harmless=0.3`.

        Raises NotFound for any other model than the served one.
        """
        if model is None or model == self._model:
            return None
        if not isinstance(model, str):
            raise BadRequest("model must be a string", param="model")
        name, at, weights = model.rpartition("@")
        if not at or name != self._model:
            message = (
                f"model {model!r} does not exist; served is {self._model!r}, weights may follow after '@'"
            )
            raise NotFound(message, param="model", code="model_not_found")
        return weights
