"""What the gateway answers, as frozen models.

Unknown fields are kept where OpenAI's format has more than we name (chat), and ignored elsewhere, so that an
older client can talk to a newer gateway.
"""

from pydantic import BaseModel, ConfigDict, Field


class Result(BaseModel):
    """Base of all answers: immutable."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


Clamped = dict[str, dict[str, float]]
"""By objective, the bound that held its weight: `{"harmless": {"low": 0.3}}`. Empty where none did."""


class Recommendation(Result):
    """What the orchestrator recommends for one prompt.

    `entropy` is in nats, `bundle` the revision that answered. `reason`: why these are fallback weights, or
    blended towards them (`unfamiliar`). `preset`: the one that had a say.
    """

    weights: dict[str, float]
    source: str
    recommended: dict[str, float] | None = None
    clamped: Clamped = {}
    entropy: float | None = None
    confidence: float | None = None
    reason: str | None = None
    preset: str | None = None
    bundle: str = ""


class RecommendationBatch(Result):
    """Wire form of the answer for several inputs: the revision is named once."""

    results: tuple[Recommendation, ...]
    bundle: str = ""

    def each(self) -> tuple[Recommendation, ...]:
        """The recommendations, in the order of the inputs, each with the bundle revision."""
        return tuple(result.model_copy(update={"bundle": self.bundle}) for result in self.results)


class MemberChoice(Result):
    """The policy of a set that answered; `distance`: total variation of its weights to the decided ones."""

    name: str
    weights: dict[str, float]
    distance: float


class Preference(Result):
    """The weights of an answer; `source` is user, preset, blended, orchestrator or fallback.

    `applied` is False where the policy does not read weights: the answer does not depend on them. (Older
    gateways, which do not say it, serve only policies that do.) `advice` is True where the policy reads them
    and was not trained to follow them. `member`: of a set of policies, the one that gave it.
    """

    weights: dict[str, float]
    source: str
    recommended: dict[str, float] | None = None
    clamped: Clamped = {}
    reason: str | None = None
    preset: str | None = None
    bundle: str = ""
    applied: bool = True
    advice: bool = False
    member: MemberChoice | None = None


class Usage(Result):
    """Tokens, counted by the engine."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    total_tokens: int = 0


class Generation(Result):
    """Answer of `generate`. `applied`, `advice` and `member` as in `Preference`; `texts` holds all answers
    where `n` is above 1."""

    text: str
    texts: tuple[str, ...] | None = None
    weights: dict[str, float]
    source: str
    applied: bool = True
    advice: bool = False
    member: MemberChoice | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    id: str = ""


class GenerationChunk(Result):
    """One event of a streamed `generate`: what is new in answer `index`.

    The first event names weights and source, and says in `applied` whether the policy reads them, in `advice`
    whether they are advice to one that was not trained to follow them, in `member` which of a set answers.
    """

    text: str = ""
    index: int = 0
    weights: dict[str, float] | None = None
    source: str | None = None
    applied: bool | None = None
    advice: bool | None = None
    member: MemberChoice | None = None
    finish_reason: str | None = None
    usage: Usage | None = None


class OpenResult(Result):
    """Part of an answer in OpenAI's format: fields without a name here are in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class ChatMessage(OpenResult):
    """A message, or in a stream the new part of one."""

    role: str | None = None
    content: str | None = None


class ChatChoice(OpenResult):
    """One of `n` answers."""

    index: int = 0
    message: ChatMessage
    finish_reason: str | None = None


class ChatCompletion(OpenResult):
    """Answer of `chat` in one piece. `ignored`: fields of the request that the gateway dropped, because they
    change nothing."""

    id: str = ""
    model: str = ""
    choices: tuple[ChatChoice, ...] = Field(min_length=1)
    usage: Usage | None = None
    preference: Preference | None = None
    ignored: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Content of the first choice; empty when the model called a tool instead."""
        return self.choices[0].message.content or ""


class ChatChunkChoice(OpenResult):
    """What is new in one of `n` answers."""

    index: int = 0
    delta: ChatMessage
    finish_reason: str | None = None


class ChatChunk(OpenResult):
    """One event of a streamed `chat`; the first one with choices carries `preference`."""

    id: str = ""
    model: str = ""
    choices: tuple[ChatChunkChoice, ...] = ()
    usage: Usage | None = None
    preference: Preference | None = None

    @property
    def text(self) -> str:
        """New text of the first of the `n` answers; empty in chunks that carry something else."""
        return "".join(choice.delta.content or "" for choice in self.choices if choice.index == 0)


class ServedObjective(Result):
    """An objective, and the interval that the operator allows for its weight."""

    name: str
    description: str = ""
    bounds: tuple[float, float] = (0.0, 1.0)


class ServedObjectives(Result):
    """What the gateway can weigh, the weights it falls back to, and those that have a name."""

    objectives: tuple[ServedObjective, ...]
    fallback: dict[str, float]
    presets: dict[str, dict[str, float]] = {}
    bundle: str = ""
