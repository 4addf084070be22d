"""The policy card `preference.json`: what the gateway must know of a policy whose checkpoint it cannot see.

Format 2 is written. Format 1, which had `context` in place of `objectives` and `conditioning`, is still read.
"""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from preforch_models.bundle import TOKENIZER_FILE, Bundle
from preforch_models.conditioning import Conditioning
from preforch_models.conditioning.context import ContextConditioning
from preforch_models.context import ContextFormat, context_tokens
from preforch_models.manifest import ArtifactError
from preforch_models.objectives import Record, explain

CARD_FILE = "preference.json"


class PolicyCard(Record):
    """`control_strings`: every special token of the policy's tokenizer, those of a context included, and the
    marks of its conditioning.

    `control_token_ids`: the tokens that no request may force into an answer, `control_token_ids` of the
    policy's folder; None on cards from before they were written.
    """

    format_version: Literal[2] = 2
    objectives: tuple[str, ...] = Field(description="by name, in order")
    conditioning: Conditioning
    control_strings: tuple[str, ...]
    control_token_ids: tuple[int, ...] | None = None
    max_model_len: int = Field(ge=16, description="tokens of prompt and response together")
    revision: str = Field(description="hash over the policy's weights and tokenizer")
    name: str = "policy"

    @property
    def context_format(self) -> ContextFormat | None:
        """How the policy's context is written; None for a policy that reads no context."""
        return self.conditioning.context_format(self.objectives)

    @model_validator(mode="after")
    def _check(self) -> "PolicyCard":
        tokens = [] if self.context_format is None else context_tokens(self.context_format)
        missing = [token for token in tokens if token not in self.control_strings]
        if missing:
            raise ValueError(f"control_strings lack the context token {missing[0]!r}")
        for mark in self.conditioning.marks:
            if mark not in self.control_strings:
                raise ValueError(f"control_strings lack the mark {mark!r} of the conditioning")
        named = self.conditioning.names_objectives
        if named is not None and named != set(self.objectives):
            raise ValueError(
                f"conditioning names {sorted(named)}, the objectives are {list(self.objectives)}"
            )
        return self


class _Format(BaseModel):
    """What is read of a card first: format 1 has no `format_version`."""

    format_version: int | None = None


class _CardOfFormat1(Record):
    """A card as it was before there were kinds of conditioning."""

    context: ContextFormat
    control_strings: tuple[str, ...]
    max_model_len: int
    revision: str
    name: str = "policy"

    def upgraded(self) -> PolicyCard:
        """The same card in format 2. Raises ValidationError where its values contradict each other."""
        return PolicyCard(
            objectives=self.context.objectives,
            conditioning=ContextConditioning(encoding=self.context.encoding),
            control_strings=self.control_strings,
            max_model_len=self.max_model_len,
            revision=self.revision,
            name=self.name,
        )


def parse_policy_card(content: bytes) -> PolicyCard:
    """A card from JSON. Raises ValidationError, or ValueError for a format that is not known."""
    version = _Format.model_validate_json(content).format_version
    if version is None:
        return _CardOfFormat1.model_validate_json(content).upgraded()
    if version != 2:
        raise ValueError(
            f"format_version {version} is not known; known are 2, and 1, whose cards have no format_version"
        )
    return PolicyCard.model_validate_json(content)


def read_policy_card(path: Path) -> PolicyCard:
    """Read a card from its file or from the policy folder it lies in. Raises ArtifactError."""
    file = path / CARD_FILE if path.is_dir() else path
    try:
        return parse_policy_card(file.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{file}: {explain(error)}") from error
    except ValueError as error:
        raise ArtifactError(f"{file}: {error}") from error


class AddedToken(BaseModel):
    """One entry of `added_tokens`."""

    id: int
    content: str
    special: bool
    normalized: bool = False


class TokenizerFile(BaseModel):
    """What is read of a tokenizer's file; the rest is the tokenizer's business."""

    added_tokens: tuple[AddedToken, ...]
    normalizer: dict[str, object] | None = None


class _Token(BaseModel):
    """A token as older versions of transformers write it."""

    content: str


class _TokenizerSettings(BaseModel):
    """What is read of `tokenizer_config.json`."""

    eos_token: str | _Token | None = None


class _GenerationSettings(BaseModel):
    """What is read of `generation_config.json`."""

    eos_token_id: int | tuple[int, ...] | None = None


Read = TypeVar("Read", bound=BaseModel)


def _read(model: type[Read], file: Path) -> Read:
    try:
        return model.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{file}: {explain(error)}") from error


def _read_if_there(model: type[Read], file: Path) -> Read:
    return _read(model, file) if file.is_file() else model()


def control_token_ids(folder: Path) -> tuple[int, ...]:
    """Ids of the special tokens of a policy, without those at which its answers end, in rising order.

    Whoever forces an end gets a shorter answer; whoever forces `<W1>` gets one under other weights. Raises
    ArtifactError.
    """
    tokens = _read(TokenizerFile, folder / TOKENIZER_FILE).added_tokens
    end = _read_if_there(_TokenizerSettings, folder / "tokenizer_config.json").eos_token
    ends = _read_if_there(_GenerationSettings, folder / "generation_config.json").eos_token_id
    ended = {ends} if isinstance(ends, int) else set(ends or ())
    end = end.content if isinstance(end, _Token) else end
    return tuple(sorted(t.id for t in tokens if t.special and t.content != end and t.id not in ended))


def check_control_strings(folder: Path, card: PolicyCard) -> None:
    """Raise ArtifactError unless the card names every special token of the tokenizer, as it stands in a text.

    A token that is looked for in normalised text has countless look-alikes: with NFKC, `＜W1＞` is `<W1>`.
    """
    file = folder / TOKENIZER_FILE
    tokenizer = _read(TokenizerFile, file)
    known = set(card.control_strings)
    missing = [
        token.content for token in tokenizer.added_tokens if token.special and token.content not in known
    ]
    if missing:
        raise ArtifactError(
            f"{folder / CARD_FILE}: control_strings lack {missing[0]!r}, a special token of {file}"
        )
    if card.control_token_ids is not None:
        unlisted = sorted(set(control_token_ids(folder)) - set(card.control_token_ids))
        if unlisted:
            raise ArtifactError(
                f"{folder / CARD_FILE}: control_token_ids lack {unlisted[0]}, a special token of {file}"
            )
    loose = [token.content for token in tokenizer.added_tokens if token.special and token.normalized]
    if loose and tokenizer.normalizer is not None:
        raise ArtifactError(
            f"{file}: the special token {loose[0]!r} is matched in normalised text, where look-alikes "
            'become it; it needs "normalized": false'
        )


def check_servable(card: PolicyCard) -> None:
    """Raise ArtifactError for a policy that no engine can serve."""
    reason = card.conditioning.unservable
    if reason is not None:
        raise ArtifactError(
            f"policy {card.name!r} can be neither served nor pushed: {reason}; the report of its run draws "
            f"from it (conditioning {card.conditioning.kind!r})"
        )


def check_match(bundle: Bundle, card: PolicyCard) -> None:
    """Raise ArtifactError unless objectives agree and the policy reads the context that the bundle writes."""
    ours, theirs = list(bundle.names), list(card.objectives)
    what = f"bundle {bundle.path} and policy {card.name!r} do not belong together"
    if ours != theirs:
        raise ArtifactError(f"{what}: the objectives are {ours} of the bundle, {theirs} of the policy")
    if card.context_format is not None and card.context_format.encoding != bundle.info.context.encoding:
        raise ArtifactError(
            f"{what}: the bundle writes {bundle.info.context.model_dump()}, "
            f"the policy reads {card.context_format.model_dump()}"
        )
