"""The layers of DESIGN: who may import whom, and that an import does nothing.

Read from the source, nothing is run.
"""

import ast
import sys
from pathlib import Path

import pytest
from preforch_training.stages import STAGES
from sources import MODULES, PACKAGES, ROOT, files, imported, parse, tops

FORBIDDEN = {
    "preforch_models": {"preforch_training", "preforch_service", "preforch_client", "preforch_cli"},
    "preforch_training": {"preforch_service", "preforch_client", "preforch_cli"},
    "preforch_service": {
        "preforch_training",
        "preforch_client",
        "preforch_cli",
        "torch",
        "transformers",
        "trl",
    },
}
# The demo talks to the service as a user does.
EXCEPTIONS = {("show.py", "preforch_client")}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
TORCH_MODULES = {"encoder", "orchestrator_model", "reward_model"}
LONGEST = 60
"""Lines of a function, from its name to its end."""
# What a module may do when it is imported, besides definitions: give a name to a value.
QUIET = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
)
# Names that touch files, environment or global state, wherever a value is made of them.
LOUD = {
    "open",
    "read_text",
    "read_bytes",
    "getenv",
    "environ",
    "basicConfig",
    "manual_seed",
    "parse_args",
    "Popen",
}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_layer_never_imports_what_lies_above_it(package: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(package)
        for name in tops(path) & FORBIDDEN[package]
        if (path.name, name) not in EXCEPTIONS
    }
    assert not wrong


def test_the_client_stands_alone() -> None:
    allowed = {"httpx", "pydantic", "preforch_client", *sys.stdlib_module_names}
    assert {path.name: tops(path) - allowed for path in files("preforch_client")} == {
        path.name: set() for path in files("preforch_client")
    }


def test_the_service_never_reaches_torch_through_the_models_either() -> None:
    torch_modules = {f"preforch_models.{name}" for name in TORCH_MODULES}
    assert not {
        f"{path.name} imports {name}"
        for path in files("preforch_service")
        for name in set(imported(path)) & torch_modules
    }
    for path in files("preforch_models"):
        heavy = tops(path) & {"torch", "transformers"}
        assert not heavy or path.stem in TORCH_MODULES, f"{path.name} imports {heavy}"
        inner = set(imported(path)) & torch_modules
        assert not inner or path.stem in TORCH_MODULES, f"{path.name} imports {inner}"


def test_stages_never_import_each_other() -> None:
    stages = {f"preforch_training.{stage}.stage" for stage in STAGES}
    for stage in STAGES:
        path = PACKAGES["preforch_training"] / stage / "stage.py"
        assert not set(imported(path)) & stages, f"{stage} imports another stage"


def test_the_command_line_imports_the_other_packages_only_when_a_command_runs() -> None:
    for path in files("preforch_cli"):
        for node in parse(path).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                )
                heavy = {"preforch_training", "preforch_service", "torch", "transformers"}
                assert not {name.partition(".")[0] for name in names} & heavy, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_a_clear_name_a_docstring_and_does_nothing_when_it_is_imported(path: Path) -> None:
    tree = parse(path)
    assert path.stem not in VAGUE
    assert ast.get_docstring(tree), "a module says what goes in and what comes out"
    for node in tree.body[1:]:
        if path.name == "__main__.py" or is_allowed_condition(node) or is_docstring(node):
            continue
        assert isinstance(node, QUIET), (
            f"line {node.lineno} does something at import: {ast.unparse(node)[:80]}"
        )
        assert not loud_names(node), f"line {node.lineno} reaches outside at import: {ast.unparse(node)[:80]}"


def is_allowed_condition(node: ast.stmt) -> bool:
    """`if TYPE_CHECKING`, and the start of a module that is run as a program."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def is_docstring(node: ast.stmt) -> bool:
    """A string below a constant that says what it is."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def loud_names(node: ast.stmt) -> set[str]:
    """Names in a module-level assignment that touch the world outside."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return set()
    names = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    return (names | {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}) & LOUD


@pytest.mark.parametrize(
    "folder",
    [*PACKAGES.values(), ROOT / "benchmarks", ROOT / "clients" / "examples", ROOT / "tests"],
    ids=lambda folder: folder.name,
)
def test_no_function_is_longer_than_a_page(folder: Path) -> None:
    paths = sorted(folder.rglob("*.py"))
    assert paths
    lengths = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in paths
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {where: lines for where, lines in lengths.items() if lines > LONGEST} == {}


def test_the_packages_are_typed() -> None:
    assert all((folder / "py.typed").is_file() for folder in PACKAGES.values())
