"""Wheel and sdist: what is in them; both install cleanly and give a program that knows its version."""

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from image import ROOT
from sandbox import package_index_environment

pytestmark = pytest.mark.deploy

FOLDERS = ("models", "training", "service", "clients")


@dataclass(frozen=True)
class Distribution:
    """The two files that a release uploads."""

    wheel: Path
    sdist: Path


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def run(*command: object, cwd: Path | None = None) -> str:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **package_index_environment()}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """Built from a copy of what git tracks: nothing that lies about here gets in.

    The wheel is made from the sdist.
    """
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in tracked():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((ROOT / path).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Distribution(wheel, sdist)


@pytest.fixture(scope="module")
def wheel_names(distribution: Distribution) -> set[str]:
    with zipfile.ZipFile(distribution.wheel) as wheel:
        return set(wheel.namelist())


def packaged() -> set[str]:
    """Every tracked file of our packages, as a wheel names it."""
    ours = [path for path in tracked() if path.parts[0] in FOLDERS and path.parts[1].startswith("preforch_")]
    return {"/".join(path.parts[1:]) for path in ours}


def test_descriptions_render_and_metadata_is_whole(distribution: Distribution) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", distribution.wheel, distribution.sdist)


def test_the_wheel_holds_every_file_of_the_packages(wheel_names: set[str]) -> None:
    assert packaged() - wheel_names == set()
    assert {
        f"preforch_{name}/py.typed" for name in ("models", "training", "service", "client", "cli")
    } <= wheel_names
    assert {"preforch_service/pages/static/index.html", "preforch_training/demo/world.py"} <= wheel_names


def test_the_wheel_holds_licence_and_configs_and_nothing_else(wheel_names: set[str]) -> None:
    others = {name for name in wheel_names if name not in packaged()}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in others)
    configs = {
        name.rpartition("/")[2] for name in others if "/data/share/preference-orchestrator/configs/" in name
    }
    assert configs == {path.name for path in (ROOT / "training" / "configs").glob("*.toml")}
    assert all(".dist-info/" in name or ".data/" in name for name in others)


def test_the_sdist_holds_what_builds_the_wheel_and_no_tests(distribution: Distribution) -> None:
    with tarfile.open(distribution.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    top = {name.partition("/")[0] for name in names} - {""}
    made = {"PKG-INFO", "setup.cfg", "preference_orchestrator.egg-info"}
    assert top - made == {*FOLDERS, "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}
    assert not [name for name in names if name.startswith(("tests", "runs")) or name.endswith(".pyc")]


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_installs_into_a_fresh_environment(distribution: Distribution, tmp_path: Path, kind: str) -> None:
    file: Path = getattr(distribution, kind)
    # The client alone for the sdist: what is to be seen is that it builds.
    extra = "service" if kind == "wheel" else "client"
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    lock = ROOT / "requirements.lock"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", lock, f"{file}[{extra}]")
    run(python, "-m", "pip", "check")
    preforch = tmp_path / "venv" / "bin" / "preforch"
    assert "serve weights and answers over HTTP" in run(preforch, "--help", cwd=tmp_path)
    assert (
        run(preforch, "--version", cwd=tmp_path).strip()
        == f"preforch {file.name.split('-')[1].removesuffix('.tar.gz')}"
    )
    if extra == "service":
        assert "--weights-only" in run(preforch, "serve", "--help", cwd=tmp_path)
    assert (tmp_path / "venv" / "share/preference-orchestrator/configs/demo.toml").is_file()
