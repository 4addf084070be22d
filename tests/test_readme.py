"""The README against the repository: its tree, its commands, its files."""

import argparse
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from preforch_cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Made by installing or using the project.
MADE = {".git", ".gitignore", ".venv", "runs"}


def blocks(language: str) -> list[str]:
    """Code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    """Every command line in the README's bash blocks, comments cut."""
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_tree_is_the_tree_on_disk() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    named = {
        name.strip().rstrip("/")
        for line in tree.strip().splitlines()
        for name in line.split("  ")[0].split(",")
    }
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    on_disk = {line.split("/")[0] for line in tracked.splitlines()} - MADE - {"README.md"}
    assert {name.split("/")[0] for name in named} == on_disk


@pytest.mark.parametrize("line", [line for line in commands() if "preforch" in line])
def test_every_preforch_command_is_understood(line: str) -> None:
    words = shlex.split(line)
    command = COMMANDS[words[1]]
    parser = argparse.ArgumentParser(exit_on_error=False)
    module = importlib.import_module(command.module)
    getattr(module, command.add_arguments)(parser)
    parser.parse_args(words[2:])


def recipe_files(makefile: str) -> set[str]:
    """Paths with a folder and an extension in the recipes, but those that a recipe writes itself."""
    recipes = "\n".join(line for line in makefile.splitlines() if line.startswith("\t"))
    named = set(re.findall(r"(?<!\S)(?:[\w.-]+/)+[\w.-]+\.\w+(?![^\s;])", recipes))
    return named - set(re.findall(r">\s*(\S+)", recipes))


def test_every_make_target_and_script_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in commands():
        words = shlex.split(line)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE), line
        for word in words[1:]:
            if word.startswith(("clients/", "training/", "benchmarks/", "tests/", "docs/")):
                assert (ROOT / word).is_file(), line
    named = recipe_files(makefile)
    assert "tests/deploy/licences.py" in named
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_every_file_that_the_readme_names_is_there() -> None:
    for name in re.findall(
        r"(?<![\w/.])((?:docs|training|service|clients|models|tests)/[\w./]+\.(?:md|py|toml|sh))", README
    ):
        assert (ROOT / name).is_file(), name


def test_the_reading_order_is_at_most_four_files_of_700_lines() -> None:
    section = README.split("## Ten minutes of reading")[1].split("\n## ")[0]
    files = re.findall(r"^\d\. `([\w/.]+\.py)`", section, flags=re.MULTILINE)
    assert 2 <= len(files) <= 4
    assert sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in files) <= 700


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_no_placeholder_is_left(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    left = set(re.findall(r"^[A-Z]+_[A-Z]+(?:_[A-Z]+)*$", text, flags=re.MULTILINE)) | set(
        re.findall(r"[A-Z]+_MINUTES", text)
    )
    assert not left
