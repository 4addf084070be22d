"""Thousands of broken rows of the schemas of docs/data.md: each is read or refused, none is lost, nothing
else is raised."""

import json
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from data_sets import NAMES, ROWS, SNIPPETS, local
from preforch_training.data.config import Config
from preforch_training.data.reading import read_sources
from preforch_training.data.writing import DataWriter
from preforch_training.records import PreferencePair, Prompt, read_records

MUTANTS = 300
"""Of each schema: more than 5,000 together."""
STRANGE: tuple[Any, ...] = (
    None,
    "",
    " \n",
    "\u200b",
    "\ud83d",
    "N/A",
    "text",
    "\n\nHuman: q\n\nAssistant: a",
    "[{'role': 'user', 'content': 'q'}]",
    "<|im_start|>user",
    0,
    -1,
    7,
    10**400,
    float("nan"),
    float("inf"),
    True,
    [],
    [[]],
    [None],
    ["a", "b"],
    {},
    {"role": "user"},
    {"role": "user", "content": "x"},
    {"from": "gpt", "value": "x"},
    {"a": {"b": []}},
    [{"role": "assistant", "content": "x"}],
    [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": None, "content": None, "tool_calls": [{"function": {"name": "\ud83d"}}]}],
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a row."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    found = [path] if path else []
    for key, inner in entries:
        found += places(inner, (*path, key))
    return found


def mutate(row: Any, rng: random.Random) -> Any:
    """A row with one or two things wrong."""
    row = deepcopy(row)
    for _ in range(rng.choice((1, 1, 2))):
        *path, last = rng.choice(places(row) or [("x",)])
        holder = row
        for key in path:
            holder = holder[key]
        match rng.randrange(5):
            case 0:
                holder.pop(last, None) if isinstance(holder, dict) else holder.pop()
            case 1 if isinstance(holder, list) and holder:
                holder.append(deepcopy(rng.choice(holder)))
            case 2 if isinstance(holder, list):
                rng.shuffle(holder)
            case 3 if isinstance(holder[last], str):
                text = holder[last]
                holder[last] = rng.choice((text * 2, text[:-1], text[::-1], f"{text}\n\nHuman: {text}"))
            case _:
                holder[last] = deepcopy(rng.choice(STRANGE))
    return row if rng.random() > 0.02 else rng.choice((*STRANGE, json.dumps(row)))


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_broken_row_is_read_or_refused_and_counted(name: str, tmp_path: Path) -> None:
    rng = random.Random(name)
    rows = [mutate(rng.choice(ROWS[name]), rng) for _ in range(MUTANTS)] + ROWS[name]
    lines = [json.dumps(row)[: -1 if rng.random() < 0.02 else None] + "\n" for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    source = local(name)
    config = Config.model_validate(
        {
            "source": "files",
            "root": tmp_path,
            "sources": [source | {"path": "rows.jsonl"}],
            "on_bad_record": "skip",
        }
    )
    with DataWriter(tmp_path, tmp_path / "index.sqlite", keep_rejected=True) as writer:
        (counts,) = read_sources(writer, config, NAMES, seed=1)
    prompts = read_records(tmp_path / "prompts.jsonl", Prompt)
    pairs = read_records(tmp_path / "pairs.jsonl", PreferencePair)
    rejected = [
        json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert counts.rows == counts.prompts + counts.skipped.total()
    assert counts.skipped.total() == len(rejected) == writer.counts["rejected"] > 0
    assert counts.pairs.total() == len(pairs)
    assert {pair.prompt_id for pair in pairs} <= {prompt.id for prompt in prompts}
    assert all(entry["where"].startswith(f"{tmp_path}/rows.jsonl:") and entry["reason"] for entry in rejected)
    if "each" not in source:
        assert counts.rows == len(rows)
        kept = {int(entry["where"].rpartition(":")[2]) for entry in rejected}
        assert len(kept) == len(rejected)
