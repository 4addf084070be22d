"""Objectives: what a response can be good at, by name. Their order is fixed here and nowhere else.

In:  the list of objectives of a config, bundle or policy card.
Out: a validated tuple; position k in it is what `<Wk+1>` and column k of every array mean.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")


class Record(BaseModel):
    """Base of all data that crosses a boundary: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Objective(Record):
    """One objective. `low` and `high` bound its weight; the defaults leave it free."""

    name: str
    description: str = ""
    low: float = Field(default=0.0, ge=0.0, le=1.0)
    high: float = Field(default=1.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _check(self) -> "Objective":
        if not _NAME.match(self.name):
            raise ValueError(
                f"objective name {self.name!r}: allowed are lower-case letters, digits, '_' and '-', "
                "first a letter"
            )
        if self.low > self.high:
            raise ValueError(f"objective {self.name!r}: low {self.low} is above high {self.high}")
        return self


def check_objectives(objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
    """Raise ValueError unless there are 2 to 16, with distinct names and bounds that some weights satisfy."""
    names = [objective.name for objective in objectives]
    if not 2 <= len(names) <= 16:
        raise ValueError(f"2 to 16 objectives are needed, got {len(names)}: {names}")
    if len(set(names)) != len(names):
        raise ValueError(f"objective names must differ, got {names}")
    lowest, highest = sum(o.low for o in objectives), sum(o.high for o in objectives)
    # 0.2 + 0.7 + 0.1 is a little less than 1.
    if lowest > 1.0 + 1e-9 or highest < 1.0 - 1e-9:
        raise ValueError(
            f"no weights satisfy the bounds: the lows sum to {lowest:.3f}, the highs to {highest:.3f}"
        )
    return objectives


Objectives = Annotated[tuple[Objective, ...], AfterValidator(check_objectives)]


def names_of(objectives: tuple[Objective, ...]) -> tuple[str, ...]:
    """Objective names, in order."""
    return tuple(objective.name for objective in objectives)


def explain(error: Any) -> str:
    """One line for a pydantic ValidationError: `field: what is wrong (got value)`, joined by '; '."""
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"]) or "(top level)"
        value = repr(item.get("input"))
        lines.append(f"{where}: {item['msg']} (got {value if len(value) <= 120 else value[:117] + '...'})")
    return "; ".join(lines)
