"""Models that stay loaded while the same ones read over and over, as rewards do in reinforcement.

Elsewhere a model that was read with is gone afterwards: stages run one after the other in the same memory.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from preforch_training.tuning.device_memory import free_memory

T = TypeVar("T")

_kept: list[dict[Hashable, Any]] = []
"""None or one, for the whole process."""


@contextmanager
def models_stay() -> Iterator[None]:
    """What `loaded` gives is kept until this ends."""
    assert not _kept, "models stay once"
    _kept.append({})
    try:
        yield
    finally:
        _kept.clear()
        free_memory()


def loaded(key: Hashable, load: Callable[[], T]) -> T:
    """What `load` gives, or gave under the same key while models stay."""
    if not _kept:
        return load()
    if key not in _kept[0]:
        _kept[0][key] = load()
    found: T = _kept[0][key]
    return found


def staying() -> bool:
    """Whether models stay."""
    return bool(_kept)


def release() -> None:
    """Free what a model took that was let go; nothing while models stay."""
    if not _kept:
        free_memory()
