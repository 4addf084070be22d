"""The source of all packages, read and never run: which modules there are, and what each imports."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "preforch_models": ROOT / "models" / "preforch_models",
    "preforch_training": ROOT / "training" / "preforch_training",
    "preforch_service": ROOT / "service" / "preforch_service",
    "preforch_client": ROOT / "clients" / "preforch_client",
    "preforch_cli": ROOT / "clients" / "preforch_cli",
}
MODULES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))


def module_name(path: Path) -> str:
    folder = next(folder for folder in PACKAGES.values() if path.is_relative_to(folder))
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path, *, typing: bool = False) -> Iterator[str]:
    """Every module that is imported anywhere in the file, also lazily; with `typing` also for a checker."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    left_out = set() if typing else typing_only(parse(path))
    for node in ast.walk(parse(path)):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                resolve_name("." * node.level + (node.module or ""), package)
                if node.level
                else node.module or ""
            )
            yield base
            # `from package import module` imports the module as well.
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (
                arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def typing_only(tree: ast.Module) -> set[int]:
    """Ids of the nodes that only a type checker sees."""
    return {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def files(package: str) -> list[Path]:
    found = [path for path in MODULES if path.is_relative_to(PACKAGES[package])]
    assert found, f"{package} has no modules"
    return found
