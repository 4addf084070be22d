"""What ranks share: the rows of a batch that is trained on, and rows that are scored or predicted.

Of the latter each rank takes a share, and rank 0 gets all results in the order of rows.
In:  a module-level function of some rows (lists of equal length, one item a row), the rows, and how long each
     is, so that shares cost alike.
Out: an array with one entry a row. What an entry is does not depend on which rank made it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from preforch_training.distributed.group import gather, in_job, rank, size, together

Rows = Callable[..., np.ndarray]
"""(*lists of some rows) -> (N, ...)."""


def shared(function: Rows, *rows: Sequence[Any], lengths: Sequence[int]) -> np.ndarray:
    """`function(*rows)`, by all ranks together. A plain call with one rank, with fewer rows than ranks, and
    in a job, whose rows are this rank's already."""
    if in_job() or size() == 1 or len(lengths) < size():
        return function(*rows)
    return together(_share, function, rows, lengths)


def _share(function: Rows, rows: Sequence[Sequence[Any]], lengths: Sequence[int]) -> np.ndarray:
    """Every rank does its share; rank 0 returns the whole."""
    order = np.argsort(lengths, kind="stable")
    mine = order[rank() :: size()]
    values = function(*([column[i] for i in mine] for column in rows))
    parts = gather(values)
    if rank() > 0:
        return values
    whole = np.empty((len(lengths), *values.shape[1:]), dtype=values.dtype)
    for number, part in enumerate(parts):
        whole[order[number :: size()]] = part
    return whole


def check_batch_size(batch_size: int, *, name: str) -> int:
    """This rank's part of a batch. Raises ValueError where ranks cannot share it evenly."""
    part, rest = divmod(batch_size, size())
    if rest:
        below = part * size()
        allowed = f"{below} or {below + size()}" if part else str(size())
        raise ValueError(
            f"{name} is {batch_size}, which {size()} ranks cannot share: allowed are multiples of {size()}, "
            f"such as {allowed}"
        )
    return part
