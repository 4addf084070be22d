"""What a study works on: prompts, responses and pairs as arrays of row numbers, and folds by prompt or by
category.

In:  the records of the stage `data`, whatever their split: a study makes its own folds.
Out: `StudyData`. P prompts, U distinct (prompt, response), N overall pairs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from preforch_training.data.splits import first_turn
from preforch_training.records import OVERALL, PreferencePair, Prompt


@dataclass(frozen=True)
class StudyData:
    """`pairs[name]`: rows (M, 2) of chosen and rejected responses; `overall` is one of the names."""

    names: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    responses: tuple[str, ...]
    prompt_U: np.ndarray
    pairs: dict[str, np.ndarray]
    overall_ids: tuple[str, ...]

    @cached_property
    def overall_N2(self) -> np.ndarray:
        """Rows of the overall pairs, chosen and rejected."""
        return self.pairs[OVERALL]

    @cached_property
    def prompt_N(self) -> np.ndarray:
        """Prompt of each overall pair."""
        return np.asarray(self.prompt_U[self.overall_N2[:, 0]])

    @cached_property
    def category_P(self) -> np.ndarray:
        """Category of each prompt; empty strings where the data has none."""
        return np.array([prompt.category for prompt in self.prompts])

    @cached_property
    def texts(self) -> list[str]:
        """What an orchestrator reads, by prompt."""
        return [prompt.text for prompt in self.prompts]


def gather(prompts: Sequence[Prompt], pairs: Sequence[PreferencePair], names: tuple[str, ...]) -> StudyData:
    """Number everything. Prompts without any pair are left out. Raises ValueError without overall pairs."""
    used = {pair.prompt_id for pair in pairs}
    kept = tuple(prompt for prompt in prompts if prompt.id in used)
    place = {prompt.id: row for row, prompt in enumerate(kept)}
    rows: dict[tuple[str, str], int] = {}
    numbered: dict[str, list[tuple[int, int]]] = {name: [] for name in (*names, OVERALL)}
    for pair in pairs:
        sides = [
            rows.setdefault((pair.prompt_id, response), len(rows))
            for response in (pair.chosen, pair.rejected)
        ]
        numbered[pair.objective].append((sides[0], sides[1]))
    empty = [name for name, found in numbered.items() if not found]
    if empty:
        raise ValueError(f"study: no pairs of {empty[0]!r}; every objective and {OVERALL!r} need some")
    return StudyData(
        names=names,
        prompts=kept,
        responses=tuple(response for _, response in rows),
        prompt_U=np.array([place[prompt_id] for prompt_id, _ in rows]),
        pairs={name: np.array(found) for name, found in numbered.items()},
        overall_ids=tuple(pair.id for pair in pairs if pair.objective == OVERALL),
    )


def draw_folds(groups: Sequence[str], folds: int, *, seed: int) -> np.ndarray:
    """Fold of each group label, from a seeded hash:
    equal labels share a fold, in whatever order they come."""
    fold_of = {}
    for group in set(groups):
        key = hashlib.sha256(f"{seed}\n{group}".encode()).digest()
        fold_of[group] = int.from_bytes(key[:8], "big") % folds
    found = np.array([fold_of[group] for group in groups])
    missing = set(range(folds)) - set(found.tolist())
    if missing:
        raise ValueError(
            f"study: {len(fold_of)} groups of prompts leave fold {min(missing)} of {folds} empty"
        )
    return found


def prompt_folds(data: StudyData, folds: int, *, seed: int) -> np.ndarray:
    """Folds by normalised first user turn, (P,)."""
    return draw_folds([first_turn(prompt.messages) for prompt in data.prompts], folds, seed=seed)


def category_folds(data: StudyData, folds: int, *, seed: int) -> np.ndarray:
    """Whole categories per fold, (P,): the training side has seen no prompt
    of a held-out prompt's category."""
    return draw_folds(data.category_P.tolist(), folds, seed=seed)
