"""`[data]`: where prompts and preference pairs come from, and how they are split."""

from pathlib import Path
from typing import Annotated, Any, Literal

from preforch_models.objectives import Record
from pydantic import Field, model_validator

from preforch_training.paths import ConfigPath, ModelName
from preforch_training.records import OVERALL

OFF = "off"


class Columns(Record):
    """Names of a source's columns; dots reach into nested objects and lists ("summaries.0.text").

    `prompt` and responses may hold a string, a transcript in HH's "\\n\\nHuman: ..." form, or a list of
    messages in OpenAI's or ShareGPT's form. `prompt` = "off", or a row without the column `prompt`: chosen
    and rejected (or `response`) hold whole conversations, and the prompt is what comes before their last
    assistant turns.
    """

    prompt: str = "prompt"
    system: str | None = None
    """Column with a system turn for the beginning of the prompt, empty or null where there is none; "off"
    leaves a column that is called so out."""
    chosen: str = "chosen"
    rejected: str = "rejected"
    """One response, or a list of them."""
    response: str = "response"
    """The response of a source with ratings, which has no `chosen` and `rejected`."""
    responses: tuple[str, ...] = ()
    """The responses of a row that says otherwise which is better: `better`, `strength`, or `ratings` of
    each."""
    objective: str | None = None
    category: str | None = None


class Transcript(Record):
    """What marks who speaks in texts that hold a conversation, white space and all; `end`: what ends a turn.

    What stands before the first mark is the user's where that mark is the assistant's, else a system turn.
    """

    user: Annotated[str, Field(min_length=1)]
    assistant: Annotated[str, Field(min_length=1)]
    system: str = ""
    end: str = ""

    @model_validator(mode="after")
    def _check(self) -> "Transcript":
        marks = [mark for mark in (self.user, self.assistant, self.system, self.end) if mark]
        if len({mark.strip() for mark in marks}) < len(marks) or not all(map(str.strip, marks)):
            raise ValueError(f"marks must differ, and be more than white space: {marks}")
        return self


class Source(Record):
    """One file or dataset of pairs, of rated responses, or of prompts. Exactly one of `path` and `dataset` is
    given."""

    path: ConfigPath | None = None
    """`.jsonl`, `.json`, `.csv` or `.parquet`, and these compressed as `.gz` or `.zst`."""
    dataset: ModelName | None = None
    """Hugging Face dataset id, or a folder that holds a dataset."""
    name: str | None = None
    """Configuration of the dataset."""
    data_dir: str | None = None
    """Folder inside the dataset."""
    revision: str = "main"
    dataset_split: str = "train"
    streaming: bool = False
    """Read the dataset without storing it first."""
    objective: str = OVERALL
    """What the pairs of this source compare: an objective, or `overall`. Ignored where a column, `better`,
    `strength` or `ratings` say it."""
    pairs: Literal["on", "off"] = "on"
    """`off`: the source has prompts alone."""
    each: Annotated[str, Field(min_length=1)] | None = None
    """Column with a list of objects, each of which is a row, together with the other columns of its own row:
    UltraFeedback's `completions`."""
    columns: Columns = Columns()
    transcript: Transcript | Literal["off"] | None = None
    """Marks of transcripts in other forms than HH's. "off": a text is a text, whatever marks are in it."""
    json_columns: tuple[str, ...] = ()
    """Columns that hold JSON as text."""
    category: str = ""
    """Category of all prompts of this source; `columns.category` has one per row. For the report only."""
    better: dict[str, str] = Field(default={})
    """Objective -> column that says which of `columns.responses` is better, by its number (0 is the first) or
    by `labels`. A column alone is of `objective`; so it is with `strength`."""
    labels: tuple[str, ...] = ()
    """What a column of `better` calls the responses, in their order."""
    ties: tuple[str, ...] = ()
    """What a column of `better` holds where none is better."""
    strength: dict[str, str] = Field(default={})
    """Objective -> column of a number: below 0 where the first of the two responses is better, above 0 where
    the second is; "-column" the other way round."""
    ratings: dict[str, str | tuple[str, ...]] = Field(default={})
    """Objective -> column of a rating, for rows that hold one response each; "-column" where lower is
    better. With `columns.responses`: a column for each of them."""
    missing: tuple[str, ...] = ("N/A", "")
    """Ratings, strengths and choices that are not there, as null is: that aspect of the row is left out."""
    min_gap: Annotated[float, Field(gt=0)] = 1e-6
    """Two responses are a pair where their ratings are at least this far apart, or the strength is this
    large."""
    pairs_per_prompt: Annotated[int, Field(ge=1)] = 10
    """At most so many pairs of a prompt and objective, drawn by the seed, of a source whose rows are rated
    responses."""
    overall: Literal["off", "min"] = "off"
    """`min`: overall pairs too, the response with the higher lowest rating is chosen. For ratings of one
    scale."""

    @property
    def label(self) -> str:
        """What messages call this source."""
        return str(self.path or self.dataset)

    @property
    def compared(self) -> tuple[str, ...]:
        """Objectives that this source says something of by `better`, `strength` or `ratings`."""
        return tuple(dict.fromkeys((*self.better, *self.strength, *self.ratings)))

    @model_validator(mode="before")
    @classmethod
    def _of_one_objective(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        objective = given.get("objective", OVERALL)
        alone = {key: given[key] for key in ("better", "strength") if isinstance(given.get(key), str)}
        if not isinstance(objective, str):
            return given
        return given | {key: {objective: column} for key, column in alone.items()}

    @model_validator(mode="after")
    def _check(self) -> "Source":
        if (self.path is None) == (self.dataset is None):
            raise ValueError(
                f"a source needs exactly one of path and dataset, got {self.path} and {self.dataset}"
            )
        if self.category and self.columns.category:
            raise ValueError(
                f"category {self.category!r} and columns.category {self.columns.category!r}: give only one"
            )
        if self.overall == "min" and (not self.ratings or OVERALL in self.ratings or self.columns.responses):
            raise ValueError(
                "overall = 'min' needs ratings, none of them 'overall', of rows with one response; "
                f"got {self.ratings}"
            )
        columns = self.columns
        if columns.prompt in {columns.chosen, columns.rejected, columns.response, *columns.responses}:
            raise ValueError(
                f"columns.prompt {columns.prompt!r} is the column of a response: a prompt would hold its own "
                "answer; columns.prompt = 'off' takes the prompt from what comes before the responses"
            )
        self._check_columns()
        if self.pairs == "off" and self.compared:
            raise ValueError(f"pairs = 'off' reads prompts alone, not {self.compared[0]!r}")
        self._check_choices()
        self._check_unused()
        return self

    def _check_columns(self) -> None:
        """Raise ValueError for a column that would be read as two things."""
        columns, used = self.columns, {"system": self.columns.system, "objective": self.columns.objective}
        used["prompt"] = None if columns.prompt == OFF else columns.prompt
        if self.ratings and not columns.responses:
            used["response"] = columns.response
        elif self.pairs == "on" and not columns.responses:
            used |= {"chosen": columns.chosen, "rejected": columns.rejected}
        names: dict[str, str] = {}
        for what, column in used.items():
            other = names.setdefault(column, what) if column not in (None, OFF) else what
            if other != what or column in columns.responses:
                also = other if other != what else "responses"
                raise ValueError(f"columns.{what} is {column!r}, and so is columns.{also}")

    def _check_unused(self) -> None:
        """Raise ValueError naming a setting that would do nothing."""
        rated = bool(self.ratings) and not self.columns.responses
        needs = {
            "a dataset": (
                self.dataset is not None,
                ("name", "data_dir", "revision", "dataset_split", "streaming"),
            ),
            "better": (bool(self.better), ("labels", "ties")),
            "ratings or strength": (bool(self.ratings or self.strength), ("min_gap",)),
            "better, strength or ratings": (bool(self.compared), ("missing",)),
            "ratings of rows with one response": (rated, ("pairs_per_prompt",)),
        }
        for what, (given, settings) in needs.items():
            fields = type(self).model_fields
            unused = [name for name in settings if getattr(self, name) != fields[name].default]
            if unused and not given:
                raise ValueError(f"{unused[0]} does nothing without {what}")
        if self.columns.objective is not None and self.compared:
            raise ValueError("columns.objective does nothing beside better, strength and ratings")

    def _check_choices(self) -> None:
        responses = self.columns.responses
        if not responses:
            wrong = self.better or self.strength
            if wrong:
                raise ValueError(
                    f"{wrong} says which of several responses is better; columns.responses must name them"
                )
            lists = {name: column for name, column in self.ratings.items() if not isinstance(column, str)}
            if lists:
                raise ValueError(
                    f"ratings {lists} are of several responses; columns.responses must name them"
                )
            return
        if len(set(responses)) < max(2, len(responses)):
            raise ValueError(f"columns.responses must name 2 or more columns, all different: {responses}")
        if not self.compared:
            raise ValueError(
                "columns.responses needs better, strength or ratings, which say what is preferred"
            )
        if self.strength and len(responses) != 2:
            raise ValueError(f"strength compares 2 responses, columns.responses names {len(responses)}")
        for name, columns in self.ratings.items():
            if isinstance(columns, str) or len(columns) != len(responses):
                raise ValueError(
                    f"ratings.{name} must name a column for each of the {len(responses)} responses, "
                    f"got {columns!r}"
                )
        if self.labels and len(self.labels) != len(responses):
            raise ValueError(
                f"labels {list(self.labels)} must name each of the {len(responses)} columns.responses"
            )
        labels = self.labels or tuple(str(number) for number in range(len(responses)))
        words = [*labels, *self.ties, *self.missing]
        if self.better and len(set(words)) < len(words):
            raise ValueError(
                f"labels {list(labels)}, ties {list(self.ties)} and missing {list(self.missing)} must all "
                "differ"
            )
        if len(self.better) + len(self.strength) + len(self.ratings) > len(self.compared):
            raise ValueError("an objective may be compared in one way only: better, strength or ratings")


class Config(Record):
    """`[data]`. Sizes of a generated world count prompts; each test split gets `test_prompts`."""

    source: Literal["demo", "tutor", "files"]
    """A generated world by its name, or files."""
    sources: tuple[Source, ...] = ()
    root: ConfigPath = Path(".")
    """Relative `path`s of sources and folders of datasets start here."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    on_bad_record: Literal["stop", "skip"] = "stop"
    train_prompts: int = 2000
    validation_prompts: int = 200
    test_prompts: int = 150

    @property
    def world(self) -> str | None:
        """The generated world that prompts and pairs come from; None where they are read."""
        return None if self.source == "files" else self.source

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share {self.validation_share} and test_share {self.test_share} leave no prompt "
                "to train on; together they must be below 1"
            )
        return self
