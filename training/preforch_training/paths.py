"""Paths and model names in a configuration: `~` and environment variables mean what they mean in a shell."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def expanded(value: Any) -> Any:
    """A text with `~` and `$NAME` filled in. Raises ValueError for a variable that is not set, and a user
    that is not known."""
    if not isinstance(value, str):
        return value
    found = os.path.expandvars(os.path.expanduser(value))
    missing = _VARIABLE.search(found)
    if missing is not None:
        raise ValueError(f"{value!r}: the environment variable {missing.group()} is not set")
    if found.startswith("~"):
        raise ValueError(f"{value!r}: there is no user {found.partition('/')[0]!r}")
    return found


ConfigPath = Annotated[Path, BeforeValidator(expanded)]
ModelName = Annotated[str, AfterValidator(expanded)]
"""A folder, a hub's id, or what a kind of model allows besides."""


@contextmanager
def naming(key: str, model: str) -> Iterator[None]:
    """Turn what a library says of a model that it cannot find into a ValueError that names the setting."""
    try:
        yield
    except OSError as error:
        # What comes from the system itself (a full disk) has nothing to do with the model.
        if not model or error.errno is not None:
            raise
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{key} = {model!r}: {first}") from error


def check_folders(models: Mapping[str, str]) -> None:
    """Raise ValueError naming the setting of a model that can only be a folder, and is none."""
    for key, model in models.items():
        if (model.startswith((".", os.sep)) or model.count("/") > 1) and not Path(model).is_dir():
            raise ValueError(f"{key} = {model!r}: no such folder")
