"""What every kind of conditioning says of itself; a kind says otherwise where it differs."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from preforch_models.objectives import Record


class ConditioningSettings(Record):
    """How decided weights reach a policy."""

    unservable: ClassVar[str | None] = None
    """Why no engine can serve a policy of this kind; None: one can."""

    @property
    def names_objectives(self) -> set[str] | None:
        """Objectives that it names, which must be the card's; None: it names none."""
        return None

    @property
    def marks(self) -> tuple[str, ...]:
        """Strings that no user's text may hold, though they are no tokens."""
        return ()

    @property
    def revisions(self) -> dict[str, str]:
        """Revisions of policies in other folders that this one consists of, by objective."""
        return {}

    def folders(self, _policy: Path) -> dict[str, Path]:
        """Where they lie, by objective."""
        return {}

    @property
    def adapter_rank(self) -> int:
        """Of the LoRA adapters of its folder, 0 where there are none."""
        return 0

    def adapters(self, _policy: Path) -> dict[str, Path]:
        """LoRA adapters of a policy's folder, by the name that an engine serves each under."""
        return {}

    def choose(self, _weights: Mapping[str, float]) -> str | None:
        """The adapter that answers under these weights; None: the policy itself."""
        return None
