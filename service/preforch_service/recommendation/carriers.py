"""What a request asks for: weights of its own, a preset of the operator, both or neither.

In:  what the carriers say (body, header, model alias), by the `param` under which an error names them.
Out: an `Asked`, checked. Carriers of one kind must agree; weights take precedence over a preset, which fills
     what they leave open (`weighing`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from preforch_models.weights import (
    Weights,
    WeightsError,
    blend,
    check_values,
    normalise,
    parse_assignments,
)

from preforch_service.errors import BadRequest

T = TypeVar("T")


@dataclass(frozen=True)
class Given:
    """Weights that somebody named, checked. `full`: those of all objectives, and they sum to 1."""

    weights: Weights
    full: bool

    def agrees(self, other: "Given") -> bool:
        """Whether both say the same, but for float noise."""
        same_names = self.weights.keys() == other.weights.keys()
        return same_names and all(
            abs(value - other.weights[name]) < 1e-9 for name, value in self.weights.items()
        )


@dataclass(frozen=True)
class Asked:
    """What a request asks for. At least one of the two is there."""

    weights: Given | None = None
    preset: str | None = None

    @property
    def preset_alone(self) -> str | None:
        """The preset, where the request adds no weights to it."""
        return self.preset if self.weights is None else None


def check_given(given: object, names: Sequence[str]) -> Given:
    """Weights as `name=number` text, a mapping, or a list of all. Raises WeightsError."""
    if isinstance(given, str):
        given = parse_assignments(given)
    if isinstance(given, Mapping):
        checked = check_values(given, names)
        if len(checked) < len(names):
            # Tells at once, and without the orchestrator, whether the pinned ones fit together.
            blend(checked, dict.fromkeys(names, 1 / len(names)), names)
            return Given({name: checked[name] for name in names if name in checked}, full=False)
        return Given(normalise(checked, names), full=True)
    if isinstance(given, list):
        return Given(normalise(given, names), full=True)
    raise WeightsError(f"weights must be an object or a list of numbers, got {type(given).__name__}")


class Carriers:
    """Reads what carriers say about the objectives and presets of one gateway."""

    def __init__(self, names: Sequence[str], presets: Mapping[str, Mapping[str, float]]) -> None:
        """Raises ValueError for a preset that holds no weights of these objectives."""
        self._names = names
        self.presets: Mapping[str, Given] = {
            preset: self._check_preset(preset, weights) for preset, weights in presets.items()
        }
        """Checked weights by the name of the preset."""

    def _check_preset(self, preset: str, weights: Mapping[str, float]) -> Given:
        try:
            return check_given(weights, self._names)
        except WeightsError as error:
            raise ValueError(f"preset {preset!r}: {error}") from error

    def read(self, weights: Mapping[str, object], presets: Mapping[str, object]) -> Asked | None:
        """What all carriers, by their `param` (None where unused), agree on.

        Raises BadRequest that names the carriers which do not.
        """
        given = _agreed(weights, self._weights, Given.agrees, what="weights")
        preset = _agreed(presets, self._preset, str.__eq__, what="presets")
        return None if given is None and preset is None else Asked(given, preset)

    def _weights(self, param: str, given: object) -> Given:
        try:
            return check_given(given, self._names)
        except WeightsError as error:
            raise BadRequest(str(error), param=param, code="invalid_weights") from error

    def _preset(self, param: str, given: object) -> str:
        if isinstance(given, str) and given in self.presets:
            return given
        known = f"known are {sorted(self.presets)}" if self.presets else "this gateway has none"
        message = f"preset {given!r} does not exist; {known}. Weights are written name=number,name=number"
        raise BadRequest(message, param=param, code="invalid_preset")


def _agreed(
    carriers: Mapping[str, object],
    read: Callable[[str, object], T],
    same: Callable[[T, T], bool],
    *,
    what: str,
) -> T | None:
    """What the first carrier in use says, where no other one contradicts it."""
    found: tuple[str, T] | None = None
    for param, given in carriers.items():
        if given is None:
            continue
        value = read(param, given)
        if found is not None and not same(found[1], value):
            first, one, other = found[0], _shown(found[1]), _shown(value)
            message = f"{first} and {param} ask for different {what}: {one} and {other}"
            raise BadRequest(message, param=param, code=f"conflicting_{what}")
        found = found or (param, value)
    return found[1] if found else None


def _shown(value: object) -> object:
    return value.weights if isinstance(value, Given) else value
