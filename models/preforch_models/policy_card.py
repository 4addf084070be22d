"""The policy card `preference.json`: what the gateway must know of a policy, since it cannot see the checkpoint."""

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError, model_validator

from preforch_models.bundle import TOKENIZER_FILE, Bundle
from preforch_models.context import ContextFormat, context_tokens
from preforch_models.manifest import ArtifactError
from preforch_models.objectives import Record, explain

CARD_FILE = "preference.json"


class PolicyCard(Record):
    """`control_strings`: every special token of the policy's tokenizer, those of the context included."""

    context: ContextFormat
    control_strings: tuple[str, ...]
    max_model_len: int = Field(ge=16, description="tokens of prompt and response together")
    revision: str = Field(description="hash over the policy's weights and tokenizer")
    name: str = "policy"

    @model_validator(mode="after")
    def _check(self) -> "PolicyCard":
        missing = [token for token in context_tokens(self.context) if token not in self.control_strings]
        if missing:
            raise ValueError(f"control_strings lack the context token {missing[0]!r}")
        return self


def read_policy_card(path: Path) -> PolicyCard:
    """Read a card from its file or from the policy folder it lies in. Raises ArtifactError."""
    file = path / CARD_FILE if path.is_dir() else path
    try:
        return PolicyCard.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{file}: {explain(error)}") from error


class AddedToken(BaseModel):
    """One entry of `added_tokens`."""

    content: str
    special: bool
    normalized: bool = False


class TokenizerFile(BaseModel):
    """What is read of a tokenizer's file; the rest is the tokenizer's business."""

    added_tokens: tuple[AddedToken, ...]
    normalizer: dict[str, object] | None = None


def check_control_strings(folder: Path, card: PolicyCard) -> None:
    """Raise ArtifactError unless the card names every special token of the policy's tokenizer, as it stands in a text.

    A token that is looked for in normalised text has look-alikes without number: with NFKC, `＜W1＞` is `<W1>`.
    """
    file = folder / TOKENIZER_FILE
    try:
        tokenizer = TokenizerFile.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ArtifactError(f"{file}: {explain(error)}") from error
    known = set(card.control_strings)
    missing = [
        token.content for token in tokenizer.added_tokens if token.special and token.content not in known
    ]
    if missing:
        raise ArtifactError(
            f"{folder / CARD_FILE}: control_strings lack {missing[0]!r}, a special token of {file}"
        )
    loose = [token.content for token in tokenizer.added_tokens if token.special and token.normalized]
    if loose and tokenizer.normalizer is not None:
        raise ArtifactError(
            f"{file}: the special token {loose[0]!r} is matched in normalised text, where look-alikes become it; "
            'it needs "normalized": false'
        )


def check_match(bundle: Bundle, card: PolicyCard) -> None:
    """Raise ArtifactError unless the policy reads the weights that this bundle recommends."""
    if bundle.info.context != card.context:
        raise ArtifactError(
            f"bundle {bundle.path} and policy {card.name!r} do not belong together: the bundle writes "
            f"{bundle.info.context.model_dump()}, the policy reads {card.context.model_dump()}"
        )
