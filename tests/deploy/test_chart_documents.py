"""What is written about the chart is up to date, and the commands in the guide run."""

from typing import Any

from chart import CHART, VALUES, schema, value_sets
from chart_tables import made, values_of


def test_the_table_and_the_descriptions_are_fresh() -> None:
    for file, content in made().items():
        assert file.read_text(encoding="utf-8") == content, (
            f"{file.name} is stale: python tests/deploy/chart_tables.py"
        )


def test_every_value_is_explained_and_in_the_schema() -> None:
    values = values_of((CHART / "values.yaml").read_text(encoding="utf-8"))
    leaves = [value for value in values if not any(other.path[:-1] == value.path for other in values)]
    assert [value.path for value in leaves if not value.said] == []
    assert [value.path for value in leaves if not found(value.path)] == []


def found(path: tuple[str, ...]) -> bool:
    """Whether the schema has the key, also where it is shared."""
    node: Any = schema()
    for key in path:
        node = schema()["definitions"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        node = node.get("properties", {}).get(key)
        if node is None:
            return False
    return True


def test_every_value_set_says_what_it_is() -> None:
    for name in value_sets():
        assert (VALUES / f"{name}.yaml").read_text(encoding="utf-8").startswith("# "), name
