"""The benchmarks whose files are read and written: one module each, one line in the table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from preforch_training.answers.formats import alpaca_eval, arena_hard, mt_bench
from preforch_training.answers.questions import Answer, Question


@dataclass(frozen=True)
class Format:
    """`render`: (answers, name of the model, seconds since 1970) -> the file of answers. `file_name`: that of
    a model, as the benchmark looks for it."""

    read: Callable[[Path], list[Question]]
    render: Callable[[Sequence[Answer], str, float], str]
    file_name: str


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "alpaca_eval": Format(alpaca_eval.read, alpaca_eval.render, "{model}.json"),
        "arena_hard": Format(arena_hard.read, arena_hard.render, "{model}.jsonl"),
        "mt_bench": Format(mt_bench.read, mt_bench.render, "{model}.jsonl"),
    }
)
