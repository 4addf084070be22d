"""`[data]`: where prompts and preference pairs come from, and how they are split."""

from pathlib import Path
from typing import Annotated, Literal

from preforch_models.objectives import Record
from pydantic import Field, model_validator

from preforch_training.records import OVERALL


class Columns(Record):
    """Names of a source's columns; dots reach into nested objects.

    `prompt` may hold a string, a list of messages, or HH's "\\n\\nHuman: ..." text.
    """

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    response: str = "response"
    """The response of a source with ratings, which has no `chosen` and `rejected`."""
    objective: str | None = None
    category: str | None = None


class Source(Record):
    """One file or dataset of pairs, or of rated responses. Exactly one of `path` and `dataset` is given."""

    path: Path | None = None
    dataset: str | None = None
    """Hugging Face dataset id."""
    name: str | None = None
    """Configuration of the dataset (`data_dir` style names are passed as they are)."""
    revision: str = "main"
    dataset_split: str = "train"
    objective: str = OVERALL
    """What the pairs of this source compare: an objective, or `overall`. Ignored where a column or ratings
    say it."""
    each: str | None = None
    """Column with a list of objects, each of which is a row, together with the other columns of its own row:
    UltraFeedback's `completions`."""
    columns: Columns = Columns()
    category: str = ""
    """Category of all prompts of this source; `columns.category` has one per row. For the report only."""
    ratings: dict[str, str] = Field(default={})
    """Objective -> column of a rating, for rows that hold one response each; "-column" where lower is
    better."""
    min_gap: Annotated[float, Field(gt=0)] = 1e-6
    """Two responses of a prompt are a pair where their ratings are at least this far apart."""
    pairs_per_prompt: Annotated[int, Field(ge=1)] = 10
    """At most so many pairs of a prompt and objective, drawn by the seed."""
    overall: Literal["off", "min"] = "off"
    """`min`: overall pairs too, the response with the higher lowest rating is chosen. For ratings of one
    scale."""

    @model_validator(mode="after")
    def _check(self) -> "Source":
        if self.category and self.columns.category:
            raise ValueError(
                f"category {self.category!r} and columns.category {self.columns.category!r}: give only one"
            )
        if self.overall == "min" and (not self.ratings or OVERALL in self.ratings):
            raise ValueError(f"overall = 'min' needs ratings, none of them 'overall'; got {self.ratings}")
        return self


class Config(Record):
    """`[data]`. Sizes of the demo count prompts; each test split gets `test_prompts`."""

    source: Literal["demo", "files"]
    sources: tuple[Source, ...] = ()
    root: Path = Path(".")
    """Relative `path`s of sources start here."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    on_bad_record: Literal["stop", "skip"] = "stop"
    train_prompts: int = 2000
    validation_prompts: int = 200
    test_prompts: int = 150
