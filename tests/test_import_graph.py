"""The graph of all modules: no cycle, and between the stages of training no arrow against their order."""

import ast
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise
from pathlib import Path

import pytest
from preforch_training.stages import STAGES
from sources import MODULES, PACKAGES, ROOT, files, imported, module_name, parse

TRAINING = PACKAGES["preforch_training"]
POLICIES = sorted((TRAINING / "policy" / "settings").glob("*.py"))
CONDITIONING = sorted((PACKAGES["preforch_models"] / "conditioning").glob("*.py"))
READS_CONFIGS = {
    "study/subject.py": "a study sets its alternatives against what the run itself chooses",
    "study/config.py": "transfers name further sources of data, with the fields of any source",
}
"""Files of a stage that read another stage's config, and why."""
MOST_MODULES = {"preforch_training": 12, "preforch_service": 14}
"""Side by side in one folder, besides `__init__` and `__main__`."""

Graph = Mapping[str, Set[str]]


def draw_graph() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports, also for a type checker alone or only when it is called."""
    known = {module_name(path) for path in MODULES}
    graph = {}
    for path in MODULES:
        found = set(imported(path, typing=True)) & known
        # `from package import module` needs the module; it names the package as well.
        parents = {name for name in found if any(other.startswith(f"{name}.") for other in found)}
        graph[module_name(path)] = (found - parents) | {name for name in parents if takes_name(path, name)}
    return graph


def takes_name(path: Path, package: str) -> bool:
    """Whether a file takes from a package what is defined in its `__init__`, and not only modules of it."""
    known = {module_name(module) for module in MODULES}
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == package
        and any(f"{package}.{alias.name}" not in known for alias in node.names)
        for node in ast.walk(parse(path))
    )


def find_cycle(graph: Graph) -> list[str]:
    """Modules that import each other round, the first one again at the end; empty where there are none."""
    done: set[str] = set()

    def search(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if cycle := search(target, [*way, module]):
                return cycle
        done.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := search(module, []))), [])


def in_words(cycle: list[str]) -> str:
    return ", ".join(f"{one} imports {two}" for one, two in pairwise(cycle))


def test_a_cycle_is_found_and_told_in_words() -> None:
    graph = {"a": {"b", "x"}, "b": {"c"}, "c": {"b"}, "x": set[str]()}
    assert in_words(find_cycle(graph)) == "b imports c, c imports b"
    assert in_words(find_cycle({"a": {"a"}})) == "a imports a"
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}) == []


def test_no_module_imports_itself_round_others() -> None:
    graph = draw_graph()
    assert len(graph) > 150
    assert sum(map(len, graph.values())) > 500
    assert in_words(find_cycle(graph)) == ""


@pytest.mark.parametrize("package", MOST_MODULES)
def test_no_folder_hides_groups_among_its_modules(package: str) -> None:
    folders: dict[str, list[str]] = {}
    for path in files(package):
        if path.stem not in ("__init__", "__main__"):
            folders.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(path.stem)
    most = MOST_MODULES[package]
    assert {folder: names for folder, names in folders.items() if len(names) > most} == {}


def stage_of(module: str) -> str | None:
    """The stage whose folder a module lies in."""
    parts = module.split(".")
    inside = len(parts) > 1 and parts[0] == "preforch_training" and parts[1] in STAGES
    return parts[1] if inside else None


def stage_files() -> list[tuple[str, Path]]:
    return [(stage, path) for stage in STAGES for path in sorted((TRAINING / stage).rglob("*.py"))]


def test_every_stage_has_a_folder_with_its_config_and_its_build() -> None:
    for stage in STAGES:
        assert (TRAINING / stage / "config.py").is_file()
        names = {node.name for node in parse(TRAINING / stage / "stage.py").body if hasattr(node, "name")}
        assert "build" in names


def test_a_stage_reads_nothing_of_a_later_one() -> None:
    order = {stage: number for number, stage in enumerate(STAGES)}
    wrong = {
        f"{path.relative_to(TRAINING)} imports {name}"
        for stage, path in stage_files()
        for name in imported(path, typing=True)
        if (other := stage_of(name)) is not None and order[other] > order[stage]
    }
    assert not wrong


def choices_in(config: Path) -> set[str]:
    """Names of a config that are words to choose from, `Loss = Literal[...]`: vocabulary, and no setting."""
    return {
        target.id
        for node in parse(config).body
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("Literal[")
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def read_of_configs(stage: str, path: Path) -> set[str]:
    """What a file of a stage takes from the configs of other stages, besides words to choose from."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                other = stage_of(name)
                # `from ...data.config import Source`, and `from ...data import config`.
                if other in (None, stage) or ".config" not in name:
                    continue
                if name.rpartition(".")[2] not in choices_in(TRAINING / str(other) / "config.py"):
                    found.add(name)
        elif isinstance(node, ast.Import):
            found |= {
                a.name for a in node.names if stage_of(a.name) not in (None, stage) and ".config" in a.name
            }
    return found


def test_a_stage_reads_no_settings_of_another() -> None:
    reads = {
        path.relative_to(TRAINING).as_posix(): found
        for stage, path in stage_files()
        if (found := read_of_configs(stage, path))
    }
    assert {file: found for file, found in reads.items() if file not in READS_CONFIGS} == {}
    assert set(READS_CONFIGS) == set(reads), "an exception that nothing needs any more"


# Kinds.


def kinds_of(paths: Iterable[Path]) -> dict[str, str]:
    """Kind -> class of its settings, from the files that define them."""
    found = {}
    for node in (node for path in paths for node in parse(path).body):
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "kind":
                    (kind,) = ast.literal_eval(f"[{ast.unparse(line.annotation)[len('Literal[') : -1]}]")
                    found[kind] = node.name
    return found


def tells_kinds_apart(path: Path, kinds: Mapping[str, str]) -> set[str]:
    """Lines that compare a `kind` with the name of one, match on it, or ask for the class of its settings."""
    switches = [node for node in ast.walk(parse(path)) if is_switch(node, kinds)]
    return {f"{path.name}: {ast.unparse(node)[:60]}" for node in switches}


def is_switch(node: ast.AST, kinds: Mapping[str, str]) -> bool:
    classes = set(kinds.values())
    if isinstance(node, ast.Match):
        return is_kind(node.subject)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "isinstance" and bool(names_in(node) & classes)
    if not isinstance(node, ast.Compare):
        return False
    words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
    asks_word = any(is_kind(side) for side in (node.left, *node.comparators)) and bool(words & set(kinds))
    return asks_word or ("type" in names_in(node) and bool(names_in(node) & classes))


def is_kind(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "kind"


def names_in(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


@pytest.mark.parametrize(
    ("definitions", "table", "some"),
    [
        ([TRAINING / "reward" / "config.py"], TRAINING / "reward" / "kinds" / "__init__.py", "pair_head"),
        (POLICIES, TRAINING / "policy" / "kinds" / "__init__.py", "wic"),
        (CONDITIONING, PACKAGES["preforch_service"] / "conditioning", "fixed"),
    ],
    ids=["reward", "policy", "conditioning"],
)
def test_nothing_but_the_table_tells_kinds_apart(definitions: Sequence[Path], table: Path, some: str) -> None:
    kinds = kinds_of(definitions)
    assert some in kinds
    assert table.exists()
    wrong = [
        line
        for path in (*files("preforch_training"), *files("preforch_service"))
        if path not in definitions and not path.is_relative_to(table)
        for line in sorted(tells_kinds_apart(path, kinds))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "if reward.kind == 'pair_head': pass",
        "x = policy.kind in ('wic', 'pair_head')",
        "x = isinstance(reward, (int, PairHeadReward))",
        "match reward.kind:\n    case 'pair_head': pass",
        "x = type(reward) is PairHeadReward",
    ],
)
def test_a_switch_on_kinds_is_found(tmp_path: Path, text: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(text, encoding="utf-8")
    assert tells_kinds_apart(path, {"pair_head": "PairHeadReward"})
    path.write_text("x = manifest.kind == 'bundle'\ny = KINDS[reward.kind]\n", encoding="utf-8")
    parse.cache_clear()
    assert not tells_kinds_apart(path, {"pair_head": "PairHeadReward"})
