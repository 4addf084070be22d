"""Command line flags from the fields of a settings model: one name, one default, one description.

In:  fields of a pydantic model. Out: flags of an argparse parser. A flag that is left out sets nothing, so
     the default stays the model's; the help shows it. Values are checked by the model.

| field | flag |
|---|---|
| `cache_entries: int = 16` | `--cache-entries N`, default 16 |
| `path: Path`, required | a positional argument |
| `weights_only: bool = False` | `--weights-only` |
| `access_log: bool = True` | `--access-log`, `--no-access-log` |
| `device: Literal["auto", "cpu"]` | `--device {auto,cpu}` |
| `upstreams: tuple[str, ...]` | `--upstream`, may be repeated |
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

METAVARS: dict[type, str] = {int: "N", float: "S", Path: "FILE"}
"""By type; of other types the last word of the field's name. Floats are seconds."""


@dataclass(frozen=True)
class Metavar:
    """Annotates a field: what its flag calls the value, where that is not what type or name say."""

    name: str


def add_flags(add: Callable[..., object], fields: Mapping[str, FieldInfo]) -> None:
    """One flag for each field, by `add_argument` of a parser or group.

    Raises TypeError for a type no flag can hold.
    """
    for name, field in fields.items():
        _add_flag(add, name, field)


def _add_flag(add: Callable[..., object], name: str, field: FieldInfo) -> None:
    kind = _without_none(field.annotation)
    flag = f"--{name.replace('_', '-')}"
    add = partial(add, default=argparse.SUPPRESS, help=_help(field))
    if kind is bool:
        add(flag, action=argparse.BooleanOptionalAction if field.default else "store_true")
    elif get_origin(kind) is Literal:
        add(flag, choices=get_args(kind))
    elif get_origin(kind) is tuple:
        metavar = _metavar(name.removesuffix("s"), field, get_args(kind)[0])
        add(flag.removesuffix("s"), dest=name, action="append", metavar=metavar)
    elif kind not in (int, float, str, Path):
        raise TypeError(f"{name}: no flag can hold {kind}")
    else:
        names = (name,) if field.is_required() else (flag,)
        add(*names, type=kind, metavar=_metavar(name, field, kind))


def _without_none(kind: Any) -> Any:
    """`int | None` as int."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    (only,) = (part for part in get_args(kind) if part is not NoneType)
    return only


def _metavar(name: str, field: FieldInfo, kind: type) -> str:
    chosen = [extra.name for extra in field.metadata if isinstance(extra, Metavar)]
    return chosen[0] if chosen else METAVARS.get(kind, name.rpartition("_")[2].upper())


def _help(field: FieldInfo) -> str:
    """The description and the default. What a default of None means, only the description can say."""
    default = field.default
    parts = [field.description] if field.description else []
    if not (field.is_required() or default is None or default is False or default == ()):
        said = "on" if default is True else f"{default:g}" if isinstance(default, float) else default
        parts.append(f"default {said}")
    return "; ".join(parts).replace("%", "%%")
