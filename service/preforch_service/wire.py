"""Requests and answers of the routes that are not OpenAI's."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _object_or_list(given: object) -> object:
    """One message about one field, where a union gives one for each of its members."""
    if isinstance(given, dict | list):
        return given
    raise ValueError(f"must be an object or a list of numbers, got {type(given).__name__}")


Weights = Annotated[dict[str, Any] | list[Any], BeforeValidator(_object_or_list)]
"""By objective name, all or some; or a list in the order of /objectives. `weighing` checks the values."""

Messages = list[dict[str, Any]]
OURS = {"prompt", "messages", "weights", "preset", "stream"}
"""Fields of `/generate` that a chat completion does not have under this name, or not as they are."""


class Wire(BaseModel):
    """An unknown field is an error, and nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Prompted(Wire):
    """One of a prompt and messages."""

    prompt: str | None = None
    messages: Messages | None = None

    @model_validator(mode="after")
    def _check(self) -> "Prompted":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("exactly one of prompt and messages is needed")
        return self


class WeightsRequest(Wire):
    """POST /weights: one prompt, one conversation, or many (256, unless the operator says otherwise)."""

    prompt: str | None = None
    messages: Messages | None = None
    inputs: Annotated[list[str | Messages], Field(min_length=1)] | None = None
    weights: Weights | None = None
    preset: str | None = None
    explain: bool = False

    @model_validator(mode="after")
    def _check(self) -> "WeightsRequest":
        if sum(given is not None for given in (self.prompt, self.messages, self.inputs)) != 1:
            raise ValueError("exactly one of prompt, messages and inputs is needed")
        return self

    def each(self) -> list[str | Messages]:
        """All inputs; a prompt or a conversation is one."""
        single = self.messages if self.prompt is None else self.prompt
        return self.inputs or ([] if single is None else [single])


class GenerateRequest(Prompted):
    """POST /generate. Limits of the values are the engine's."""

    weights: Weights | None = None
    preset: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    stream: bool = False

    def chat_body(self) -> dict[str, Any]:
        """The same as a chat completion."""
        messages = self.messages if self.prompt is None else [{"role": "user", "content": self.prompt}]
        sampling = self.model_dump(exclude_none=True, exclude=OURS)
        usage = {"stream": True, "stream_options": {"include_usage": True}} if self.stream else {}
        ours = {"preference_weights": self.weights, "preference_preset": self.preset}
        return {"messages": messages, **ours, **sampling, **usage}


class Recommended(BaseModel):
    """Weights for one input.

    `entropy` (nats) and `confidence` belong to the recommendation, where there is one.

    `confidence`, 0 to 1: at even odds, the probability that the prompt is one of the kind that the
    orchestrator was trained on; of a bundle that does not know that, 1 - `entropy` / (2 log K). `clamped`: by
    objective, the bound that held its weight. `steps`: how the weights came about, where that was asked for.
    """

    weights: dict[str, float]
    source: str
    recommended: dict[str, float] | None
    clamped: dict[str, dict[str, float]]
    entropy: float | None
    confidence: float | None
    reason: str | None = None
    preset: str | None = None
    steps: list[dict[str, Any]] | None = None
    bundle: str


class Reloaded(BaseModel):
    """Answer of /admin/reload: whether the bundle is another one than before, and the revision in force."""

    reloaded: bool
    bundle: str


class Generated(BaseModel):
    """Answer of /generate. `applied`: the answer depends on the weights; `advice`: the policy was not trained
    to follow them; `member`: of a set of policies, the name, weights and distance of the one that gave it.
    `texts`: all answers where n is above 1."""

    text: str
    weights: dict[str, float]
    source: str
    applied: bool
    advice: Literal[True] | None = None
    member: dict[str, Any] | None = None
    finish_reason: str | None
    usage: dict[str, Any] | None
    model: str
    id: str
    texts: list[str] | None = None
