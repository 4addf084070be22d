"""From a user's request to the engine's.

In:  the parsed JSON body of a chat, another conversation (`formats`) or a completion, and weights or a preset
     from headers and model alias.
Out: `Prepared` texts for the orchestrator; then, with the decisions, the JSON body for the engine.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preforch_models.policy_card import PolicyCard
from preforch_models.weights import Weights

from preforch_service.conditioning import Conditioner
from preforch_service.errors import BadRequest, NotFound
from preforch_service.recommendation.carriers import Asked, Carriers
from preforch_service.recommendation.weighing import HEADER, PRESET_HEADER
from preforch_service.requests.control_strings import ControlGuard
from preforch_service.requests.fields import (
    CHAT_FORWARDED,
    CHAT_NOT_SERVED,
    CHAT_REFUSED,
    COMPLETION_FORWARDED,
    COMPLETION_NOT_SERVED,
    COMPLETION_REFUSED,
    CONSTRAINTS,
    OWN_FIELDS,
    PRESET_FIELD,
    TEMPLATE_SEES,
    WEIGHTS_FIELD,
    check_fields,
    check_template_kwargs,
)
from preforch_service.requests.formats import Reading, RequestFormat
from preforch_service.requests.ignored import Ignored, UnknownFields
from preforch_service.requests.legacy_functions import asks_for_functions, with_function_call, with_tools
from preforch_service.requests.logit_bias import check_bias
from preforch_service.requests.messages import guard_messages, orchestrator_text, read_messages

SAME_NAMES: Mapping[str, str] = {name: name for name in OWN_FIELDS}
"""What a client calls our fields of the body: an error names them so."""

_NO_CHAT = {**CHAT_REFUSED, **CHAT_NOT_SERVED}
_NO_COMPLETION = {**COMPLETION_REFUSED, **COMPLETION_NOT_SERVED}


@dataclass(frozen=True)
class Prepared:
    """A checked request of one or more prompts, each with a text for the orchestrator.

    `finish` makes the engine's body of it, in which the policy finds the weights of each prompt.
    `calls_tools`: the answer may be a call of a tool, for routes that do not refuse it without a parser.
    `rewrite` changes a whole answer, or one event of it, where a client expects an older format.
    """

    texts: tuple[str, ...]
    asked: Asked | None
    finish: Callable[[Sequence[Weights]], dict[str, Any]]
    ignored: Ignored
    calls_tools: bool = False
    rewrite: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def encode_json(body: Mapping[str, object]) -> bytes:
    """The bytes for the engine. Raises BadRequest on NaN and infinities, which JSON cannot carry."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError as error:
        raise BadRequest(f"the body holds a number that is not finite: {error}") from error


def may_call_tools(body: Mapping[str, Any]) -> bool:
    """Whether the policy may call tools: `auto` is the default where there are any."""
    return bool(body.get("tools")) and body.get("tool_choice") not in ("none", {"type": "none"})


def _prompts(given: object) -> dict[str, str]:
    """The prompts of a completion by the place that an error names. Raises BadRequest."""
    prompts = {"prompt": given}
    if isinstance(given, list) and given:
        prompts = {f"prompt[{i}]": prompt for i, prompt in enumerate(given)}
    for param, prompt in prompts.items():
        if not isinstance(prompt, str) or not prompt:
            ids = isinstance(prompt, int) or (isinstance(prompt, list) and prompt != [])
            hint = "; token ids are not served: they could hold control tokens" if ids else ""
            message = f"prompt must be a string that is not empty, or a list of such{hint}"
            raise BadRequest(message, param="prompt" if ids else param)
    return {param: str(prompt) for param, prompt in prompts.items()}


def _in_one(bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One request of the bodies of several prompts. Raises BadRequest where more than these differs."""
    first = bodies[0]
    if len(bodies) == 1:
        return first
    if any(body | {"prompt": None} != first | {"prompt": None} for body in bodies):
        message = (
            "the weights of these prompts belong to different members of the policy, and one request is "
            "answered by one of them: send the prompts one by one, or give weights of all objectives"
        )
        raise BadRequest(message, param="prompt")
    return first | {"prompt": [body["prompt"] for body in bodies]}


class Preparer:
    """Checks requests and rewrites them for one policy."""

    def __init__(
        self,
        conditioner: Conditioner,
        guard: ControlGuard,
        *,
        card: PolicyCard,
        carriers: Carriers,
        model: str,
        template_kwargs: tuple[str, ...],
        unknown_fields: UnknownFields,
    ) -> None:
        self._conditioner = conditioner
        self._guard = guard
        ids = card.control_token_ids
        self._control_token_ids = None if ids is None else frozenset(ids)
        self._carriers = carriers
        self._model = model
        self._template_kwargs = template_kwargs
        self._unknown_fields = unknown_fields

    def chat(
        self, body: dict[str, Any], headers: Mapping[str, str], *, names: Mapping[str, str] = SAME_NAMES
    ) -> Prepared:
        """A chat completion. Raises BadRequest."""
        ignored = Ignored(self._unknown_fields)
        fields = check_fields(with_tools(body), forwarded=CHAT_FORWARDED, refused=_NO_CHAT, ignored=ignored)
        check_bias(fields.get("logit_bias"), self._control_token_ids)
        messages = read_messages(fields.get("messages"), ignored)
        kwargs = check_template_kwargs(fields.get("chat_template_kwargs"), allowed=self._template_kwargs)
        clean = self._clean(fields) | {"messages": guard_messages(messages, self._guard)}
        clean["chat_template_kwargs"] = kwargs
        clean |= self._guarded(clean, *TEMPLATE_SEES, *CONSTRAINTS)

        return Prepared(
            (orchestrator_text(messages),),
            self._asked(fields, headers, names),
            self._finish_chat(clean),
            ignored,
            may_call_tools(clean),
            with_function_call if asks_for_functions(body) else None,
        )

    def conversation(self, form: RequestFormat, body: dict[str, Any], headers: Mapping[str, str]) -> Prepared:
        """A conversation in another format than chat's. Raises BadRequest."""
        reading = Reading(self._guard, Ignored(self._unknown_fields))
        fields = form.select(body, reading.ignored)
        check_bias(fields.get("logit_bias"), self._control_token_ids)
        kwargs = check_template_kwargs(fields.get("chat_template_kwargs"), allowed=self._template_kwargs)
        clean = form.read(self._clean(fields), reading) | {"chat_template_kwargs": kwargs}
        clean |= self._guarded(clean, *form.guarded)
        return Prepared(
            (orchestrator_text(reading.turns),),
            self._asked(fields, headers),
            self._finish_chat(clean),
            reading.ignored,
            may_call_tools(clean),
        )

    def asked_by_name(self, model: str) -> Asked | None:
        """What a model's name asks for by itself.

        Raises NotFound where it is not a name of the served one, BadRequest for what follows its '@'.
        """
        return self._asked({"model": model}, {})

    def completion(self, body: dict[str, Any], headers: Mapping[str, str]) -> Prepared:
        """A completion of one string prompt or of several. Raises BadRequest."""
        ignored = Ignored(self._unknown_fields)
        fields = check_fields(body, forwarded=COMPLETION_FORWARDED, refused=_NO_COMPLETION, ignored=ignored)
        check_bias(fields.get("logit_bias"), self._control_token_ids)
        prompts = _prompts(fields.get("prompt"))
        clean = self._clean(fields)
        clean |= self._guarded(clean, *CONSTRAINTS)
        guarded = [self._guard.text(prompt, param) for param, prompt in prompts.items()]

        def finish(weights: Sequence[Weights]) -> dict[str, Any]:
            decided = zip(guarded, weights, strict=True)
            return _in_one([self._conditioner.completion(clean | {"prompt": p}, w) for p, w in decided])

        return Prepared(tuple(prompts.values()), self._asked(fields, headers), finish, ignored)

    def _finish_chat(self, clean: dict[str, Any]) -> Callable[[Sequence[Weights]], dict[str, Any]]:
        """`finish` of a conversation, which is one prompt."""

        def finish(weights: Sequence[Weights]) -> dict[str, Any]:
            (decided,) = weights
            return self._conditioner.chat(clean, decided)

        return finish

    def _guarded(self, body: Mapping[str, Any], *names: str) -> dict[str, Any]:
        """Those of the fields that are there, without control strings."""
        structure = body.get("structured_outputs")
        if isinstance(structure, Mapping) and isinstance(structure.get("json"), str):
            # JSON in a string has more ways to write a character than a check for strings sees.
            raise BadRequest("structured_outputs.json must be an object", param="structured_outputs.json")
        return {name: self._guard.value(body[name], name) for name in names if name in body}

    def _clean(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in body.items() if key not in OWN_FIELDS} | {"model": self._model}

    def _asked(
        self, body: Mapping[str, Any], headers: Mapping[str, str], names: Mapping[str, str] = SAME_NAMES
    ) -> Asked | None:
        alias = self._alias(body.get("model"))
        # No preset has a '=' in its name.
        weights, preset = (alias, None) if alias is not None and "=" in alias else (None, alias)
        return self._carriers.read(
            {names[WEIGHTS_FIELD]: body.get(WEIGHTS_FIELD), HEADER: headers.get(HEADER), "model": weights},
            {
                names[PRESET_FIELD]: body.get(PRESET_FIELD),
                PRESET_HEADER: headers.get(PRESET_HEADER),
                "model": preset,
            },
        )

    def _alias(self, model: object) -> str | None:
        """The weights in `NAME@helpful=0.7,harmless=0.3`, or the preset in `NAME@safe`.

        Raises NotFound for any other model than the served one.
        """
        if model is None or model == self._model:
            return None
        if not isinstance(model, str):
            raise BadRequest("model must be a string", param="model")
        name, at, alias = model.rpartition("@")
        if not at or name != self._model:
            message = (
                f"model {model!r} does not exist; served is {self._model!r}, weights or a preset may follow "
                "after '@'"
            )
            raise NotFound(message, param="model", code="model_not_found")
        return alias
