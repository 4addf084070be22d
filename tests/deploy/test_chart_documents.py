"""What is written about the chart is up to date, and the commands in the guide run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, ROOT, VALUES, Values, check_values, read_values, render, schema, value_sets
from chart_tables import made, nodes, values_of

GUIDE = ROOT / "docs" / "kubernetes.md"


def test_the_table_and_the_descriptions_are_fresh() -> None:
    for file, content in made().items():
        assert file.read_text(encoding="utf-8") == content, f"{file.name} is stale: python tests/deploy/chart_tables.py"


def test_every_value_is_explained_and_in_the_schema() -> None:
    values = values_of((CHART / "values.yaml").read_text(encoding="utf-8"))
    leaves = [value for value in values if not any(other.path[:-1] == value.path for other in values)]
    assert [value.path for value in leaves if not value.said] == []
    known = {path: node for path, node in nodes(schema())}
    assert [value.path for value in leaves if "$ref" not in known.get(value.path[:1], {}) and not found(value.path)] == []


def found(path: tuple[str, ...]) -> bool:
    """Whether the schema has the key, also where it is shared."""
    node: Any = schema()
    for key in path:
        node = schema()["definitions"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        node = node.get("properties", {}).get(key)
        if node is None:
            return False
    return True


def helm_commands() -> list[str]:
    """Every `helm install`, `upgrade` or `template` in the guide, on one line."""
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith(("helm install", "helm upgrade", "helm template"))]


def values_blocks() -> dict[str, Values]:
    """Values in the guide: YAML blocks that begin with `# NAME.yaml`."""
    blocks = re.findall(r"```yaml\n# ([\w-]+\.yaml)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {name: yaml.safe_load(text) for name, text in blocks}


def read_command(command: str) -> tuple[str, str, Values]:
    """Release, chart and values of a command; only the options that the guide uses are known."""
    words = shlex.split(command)[2:]
    values: Values = {}
    plain: list[str] = []
    while words:
        word = words.pop(0)
        if word in ("--values", "-f"):
            values = over(values, file_values(words.pop(0)))
        elif word == "--set":
            values = over(values, assignments(words.pop(0)))
        elif word in ("--namespace", "-n"):
            words.pop(0)
        elif word not in ("--install", "--create-namespace", "--wait", "--reuse-values", "--atomic"):
            assert not word.startswith("-"), f"{command}: {word} is not known here"
            plain.append(word)
    release, chart = plain
    return release, chart, values


def file_values(name: str) -> Values:
    blocks = values_blocks()
    if name in blocks:
        return blocks[name]
    assert (ROOT / name).parent == VALUES, f"{name} is neither in the guide nor in {VALUES.name}"
    return read_values(Path(name).stem)


def assignments(text: str) -> Values:
    """`a.b=c,d=e`."""
    values: Values = {}
    for item in text.split(","):
        path, _, value = item.partition("=")
        nested: Any = yaml.safe_load(value)
        for key in reversed(path.split(".")):
            nested = {key: nested}
        values = over(values, nested)
    return values


def over(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return {**base, **{key: over(base.get(key), value) for key, value in changes.items()}}


def test_the_guide_has_commands() -> None:
    assert len(helm_commands()) >= 6


@pytest.mark.parametrize("command", helm_commands())
def test_a_command_of_the_guide_renders(command: str) -> None:
    release, chart, values = read_command(command)
    assert ROOT / chart == CHART
    check_values(values)
    assert render(values, release=release)


def test_every_value_set_says_what_it_is() -> None:
    for name in value_sets():
        assert (VALUES / f"{name}.yaml").read_text(encoding="utf-8").startswith("# "), name
