"""`preforch serve hf:ORG/NAME@COMMIT`: one commit, verified, from the cache where the hub is gone."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fake_hub import FakeHub, Repository, fake_hub
from preforch_models.manifest import Manifest, write_manifest
from preforch_service.locate import fetched

WITHOUT_HUB_CLIENT = """
import runpy, sys
sys.modules["huggingface_hub"] = None
sys.argv[0] = "preforch_service"
runpy.run_module("preforch_service", run_name="__main__")
"""
REPO = "lab/model"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


def publish(hub: FakeHub, folder: Path) -> str:
    """A commit of a private repository with a folder's files. Returns how it is named."""
    repository = hub.repositories.setdefault(REPO, Repository(private=True))
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    return f"hf:{REPO}@{repository.commit('main', {'.gitattributes': b'', **files})}"


def command(*arguments: str, program: tuple[str, ...] = ("-m", "preforch_service")) -> list[str]:
    return [sys.executable, *program, *arguments, "--port", "0", "--metrics-port", "0"]


def environment(hub: FakeHub, home: Path) -> dict[str, str]:
    return {**os.environ, **hub.environment(home)}


def recommended(hub: FakeHub, home: Path, *arguments: str) -> dict[str, float]:
    """What a gateway recommends that is started with these arguments and stopped again."""
    with subprocess.Popen(
        command(*arguments), env=environment(hub, home), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready at http://"), line
        answer = httpx.post(f"{line.split()[-1]}/weights", json={"prompt": "Tell me a joke."}).json()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert answer["source"] == "orchestrator"
    weights: dict[str, float] = answer["weights"]
    return weights


def refused(hub: FakeHub, home: Path, *arguments: str, offline: bool = False) -> str:
    """The one line that a wrong call says."""
    done = subprocess.run(
        command(*arguments),
        env=environment(hub, home) | {"HF_HUB_OFFLINE": str(int(offline))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_run_and_a_bundle_are_served_at_a_commit_and_again_without_the_hub(
    hub: FakeHub, run_folder: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    run, bundle = publish(hub, run_folder), publish(hub, bundle_folder)
    expected = recommended(hub, tmp_path, str(bundle_folder), "--weights-only")
    assert hub.requests == []
    assert recommended(hub, tmp_path, run, "--weights-only") == expected
    assert any("/resolve/" in request for request in hub.requests)
    # A policy is needed by nobody here.
    assert not [request for request in hub.requests if "model.safetensors" in request]
    assert recommended(hub, tmp_path, bundle, "--weights-only") == expected
    hub.requests.clear()
    hub.url = "http://127.0.0.1:9"
    for name in (run, bundle):
        assert recommended(hub, tmp_path, name, "--weights-only") == expected
    assert hub.requests == []


def test_the_policy_of_a_run_comes_from_the_hub_and_is_verified(
    hub: FakeHub, run_folder: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    # Stops after bundle and policy are read, before an engine is started.
    stop = ("--policy-name", "other")
    assert "choose with --policy-name: ['wic']" in refused(hub, tmp_path, publish(hub, run), *stop)
    assert any(request.endswith("model.safetensors") for request in hub.requests)
    weights = run / "policy" / "wic" / "round-0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    assert "model.safetensors: sha256 is" in refused(hub, tmp_path, publish(hub, run))


def test_code_is_neither_fetched_nor_served(hub: FakeHub, bundle_folder: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(bundle_folder, tmp_path / "bundle")
    (bundle / "modeling.py").write_text("raise SystemExit", encoding="utf-8")
    write_manifest(bundle, Manifest(kind="bundle"))
    said = refused(hub, tmp_path / "hf", publish(hub, bundle), "--weights-only")
    assert "modeling.py: missing" in said
    assert not list((tmp_path / "hf").rglob("*.py"))


@pytest.mark.parametrize(
    "name", ["hf:lab/model", "hf:lab/model@main", "hf:lab/model@1234567", "hf:model@" + "0" * 40]
)
def test_what_names_no_commit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected hf:ORG/NAME@COMMIT, a commit with its 40 digits"):
        fetched(Path(name), policies=False)


def test_other_paths_are_left_as_they_are(tmp_path: Path) -> None:
    assert fetched(tmp_path, policies=True) == tmp_path


def test_a_commit_that_is_nowhere_and_a_hub_that_is_not_there_are_one_line(
    hub: FakeHub, tmp_path: Path
) -> None:
    assert "lab/other" in refused(hub, tmp_path, f"hf:lab/other@{'0' * 40}", "--weights-only")
    hub.requests.clear()
    said = refused(hub, tmp_path, f"hf:lab/other@{'0' * 40}", "--weights-only", offline=True)
    assert "outgoing traffic has been disabled" in said
    assert hub.requests == []


def test_without_the_client_of_the_hub_the_extra_is_named(hub: FakeHub, tmp_path: Path) -> None:
    done = subprocess.run(
        command(f"hf:{REPO}@{'0' * 40}", "--weights-only", program=("-c", WITHOUT_HUB_CLIENT)),
        env=environment(hub, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'preference-orchestrator[hub]'" in done.stderr
