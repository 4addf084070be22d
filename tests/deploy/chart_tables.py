"""Keeps what is said of the values in one place: the comments in values.yaml.

In:  values.yaml, where the comment above a key says what the key means.
Out: the table in the chart's README, and the descriptions in values.schema.json.

`python tests/deploy/chart_tables.py` writes both; a test fails where they are stale.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm" / "preference-orchestrator"
BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"
_KEY = re.compile(r"( *)([A-Za-z][A-Za-z0-9]*):")


@dataclass(frozen=True)
class Value:
    """One key of values.yaml. `said` is empty where nothing is above it."""

    path: tuple[str, ...]
    said: str
    default: object


def values_of(text: str) -> list[Value]:
    """Every key that has a comment, and every one that has none but holds no further keys with comments."""
    defaults = yaml.safe_load(text)
    found: list[Value] = []
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped[1:].strip())
        elif match := _KEY.match(line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if not isinstance(parent := at(defaults, path[:-1]), list):
                found.append(Value(tuple(path), " ".join(comment), parent[path[-1]]))
            comment = []
        elif not stripped:
            comment = []
    return found


def at(values: Any, path: list[str]) -> Any:
    """The default of a key, or the list that it is in."""
    for key in path:
        values = values if isinstance(values, list) else values[key]
    return values


def table(values: list[Value]) -> str:
    """The README's table; groups of keys have no default."""
    groups = {value.path[:-1] for value in values}
    rows = [
        f"| `{'.'.join(value.path)}` | "
        f"{'' if value.path in groups else f'`{shown(value.default)}`'} | {value.said} |\n"
        for value in values
        if value.said
    ]
    return "".join(["| key | default | what it means |\n|---|---|---|\n", *rows])


def shown(default: object) -> str:
    """A default as it may stand in a table."""
    return json.dumps(default, ensure_ascii=False)


def readme(text: str, values: list[Value]) -> str:
    """The README with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table(values) + END + after


def described(schema: dict[str, Any], values: list[Value]) -> dict[str, Any]:
    """The schema with a description at every key."""
    said = {value.path: value.said for value in values if value.said}
    for path, node in nodes(schema):
        if path in said:
            node["description"] = said[path]
    return schema


def nodes(
    schema: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The schema of every key, by its path. What several keys share is described where it is used."""
    for key, node in schema.get("properties", {}).items():
        yield (*path, key), node
        yield from nodes(node, (*path, key))


def made() -> dict[Path, str]:
    """What the files should hold."""
    values = values_of((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return {
        CHART / "README.md": readme((CHART / "README.md").read_text(encoding="utf-8"), values),
        CHART / "values.schema.json": json.dumps(described(schema, values), indent=2, ensure_ascii=False)
        + "\n",
    }


if __name__ == "__main__":
    for file, content in made().items():
        file.write_text(content, encoding="utf-8")
