"""`mixture`: several policies, whose next tokens are mixed by the weights at every step (MOD).

The policy folder has a tokenizer and no checkpoint: its members are other policies of the same run.
"""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from preforch_models.conditioning.base import ConditioningSettings
from preforch_models.context import ContextFormat
from preforch_models.objectives import Record


class MixedPolicy(Record):
    """`folder`: relative to that of the mixture. `revision`: that of the policy when the mixture was made."""

    folder: str
    revision: str


class MixtureConditioning(ConditioningSettings):
    """`members`: by objective the policy that was trained for it."""

    reads_weights: ClassVar[bool] = True
    unservable: ClassVar[str | None] = "every token is drawn from several models at once, and vLLM holds one"
    kind: Literal["mixture"] = "mixture"
    members: dict[str, MixedPolicy] = Field(min_length=1)

    def context_format(self, _objectives: tuple[str, ...]) -> ContextFormat | None:
        """None: weights mix the members and are not written."""
        return None

    @property
    def names_objectives(self) -> set[str]:
        """Those of its members."""
        return set(self.members)

    @property
    def revisions(self) -> dict[str, str]:
        """Those of its members, by objective."""
        return {objective: member.revision for objective, member in self.members.items()}

    def folders(self, policy: Path) -> dict[str, Path]:
        """Those of its members, by objective, for the mixture in this folder."""
        return {objective: (policy / member.folder).resolve() for objective, member in self.members.items()}
