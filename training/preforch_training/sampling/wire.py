"""What the sampler and its vLLM child say to each other: one JSON line each, over pipes.

In:  the sampler sends a Job at a time.
Out: the child answers it with any number of Progress lines and then one Answer, NotLoaded or Failure.
"""

from typing import Annotated, Literal

from preforch_models.objectives import Record
from pydantic import Field, TypeAdapter

from preforch_training.sampling.settings import Engine


class TokenRequest(Record):
    """One prompt as token ids, to be answered `n` times, by an adapter of the job's where one is named."""

    prompt_ids: tuple[int, ...]
    n: int
    seed: int
    adapter: str | None = None


class Job(Record):
    """One call of the sampler. `reload`: the child's engine holds other weights than this policy's.
    `adapters`: folders by name, of at most `adapter_rank`."""

    policy: str
    reload: bool
    max_model_len: int
    end_id: int
    temperature: float
    top_p: float
    max_tokens: int
    engine: Engine
    adapters: dict[str, str]
    adapter_rank: int
    requests: tuple[TokenRequest, ...]


class TokenResponse(Record):
    """Token ids without the end token."""

    token_ids: tuple[int, ...]
    finished: bool


class Progress(Record):
    """`done` of all responses of the job; sent a few times a second at most."""

    kind: Literal["progress"] = "progress"
    done: int


class Answer(Record):
    """Responses by request. `peak_memory_mib`: the child's, since it was last reset."""

    kind: Literal["answer"] = "answer"
    responses: tuple[tuple[TokenResponse, ...], ...]
    peak_memory_mib: float


class NotLoaded(Record):
    """The engine cannot be shown to hold the job's weights after a load in place; a new one is needed."""

    kind: Literal["not_loaded"] = "not_loaded"
    reason: str


class Failure(Record):
    """vLLM raised an error; the child ends."""

    kind: Literal["failure"] = "failure"
    error: str


JobOutcome = Answer | NotLoaded | Failure
Reply = Annotated[Progress | JobOutcome, Field(discriminator="kind")]

_REPLY: TypeAdapter[Progress | JobOutcome] = TypeAdapter(Reply)


def read_reply(line: bytes) -> Progress | JobOutcome:
    """A reply from its line. Raises pydantic's ValidationError."""
    return _REPLY.validate_json(line)


def line_of(record: Record) -> bytes:
    """A record as the line that is sent."""
    return record.model_dump_json().encode() + b"\n"
