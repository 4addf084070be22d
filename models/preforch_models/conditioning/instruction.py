"""`instruction`: a model that nobody trained for weights is told them in words, at the beginning of its
system message."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from preforch_models.conditioning.base import ConditioningSettings
from preforch_models.context import ContextFormat
from preforch_models.instruction import MARK


class InstructionConditioning(ConditioningSettings):
    """`descriptions`: what each objective is, in their order; empty where nothing is known.

    `turn_marks`: what the model's own template prints around turns and its tokenizer reads as ordinary text
    (`[INST]` of some). They are control strings beside the special tokens.
    """

    reads_weights: ClassVar[bool] = True
    kind: Literal["instruction"] = "instruction"
    note: Literal["the weights are advice to a model that was not trained to follow them"] = (
        "the weights are advice to a model that was not trained to follow them"
    )
    descriptions: dict[str, str] = Field(min_length=2)
    turn_marks: tuple[str, ...] = ()

    def context_format(self, _objectives: tuple[str, ...]) -> ContextFormat | None:
        """None: weights are written as text, without tokens of their own."""
        return None

    @property
    def names_objectives(self) -> set[str]:
        """Those that it describes."""
        return set(self.descriptions)

    @property
    def marks(self) -> tuple[str, ...]:
        """The beginning of the line with the weights, and the marks of turns."""
        return (MARK, *self.turn_marks)

    @model_validator(mode="after")
    def _check(self) -> "InstructionConditioning":
        for name, text in self.descriptions.items():
            mark = next((mark for mark in self.marks if mark in text), None)
            if mark is not None or not text.isprintable():
                what = f"the mark {mark!r}" if mark else "a line break or another control character"
                raise ValueError(f"the description of {name!r} holds {what}: {text!r}")
        return self
