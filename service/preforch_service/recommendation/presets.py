"""Presets: weights to which the operator has given a name.

In:  `--presets FILE`, TOML such as `[presets]` with `safe = {harmless = 0.7}`. Out: weights by preset, all
     objectives or some; which objectives there are is checked where these are known (`carriers`).
"""

from pathlib import Path
from typing import Annotated

from preforch_models.objectives import Record, explain
from pydantic import Field, ValidationError

from preforch_service.keys import read_toml

PresetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
"""Without '=', which tells a preset from weights after the '@' of a model's alias."""
Presets = dict[PresetName, dict[str, Annotated[float, Field(strict=True)]]]


class PresetFile(Record):
    """Contents of the file."""

    presets: Presets = Field(min_length=1)


def read_presets(file: Path) -> Presets:
    """The presets of a file. Raises ValueError or OSError."""
    try:
        return PresetFile.model_validate(read_toml(file)).presets
    except ValidationError as error:
        raise ValueError(f"{file}: {explain(error)}") from error
