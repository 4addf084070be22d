"""The served policy is the newest finished round of the only one, made from the rounds before it."""

from pathlib import Path

import pytest
from preforch_models.manifest import ArtifactError, Manifest, digest, read_manifest, write_manifest
from preforch_service.locate import find_bundle, find_policy


def add_artifact(folder: Path, *, previous: Path | None = None, content: str = "") -> Path:
    """A finished artifact, as far as its place in a run counts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preference.json").write_text(content, encoding="utf-8")
    inputs = {} if previous is None else {"previous": digest(read_manifest(previous).files)}
    write_manifest(folder, Manifest(kind="policy", inputs=inputs))
    return folder


def add_round(
    run: Path, policy: str, number: int, *, previous: Path | None = None, content: str = ""
) -> Path:
    return add_artifact(run / "policy" / policy / f"round-{number}", previous=previous, content=content)


def test_the_newest_finished_round_counts_by_number(tmp_path: Path) -> None:
    add_round(tmp_path, "base", 99)
    older = add_round(tmp_path, "wic", 9)
    newest = add_round(tmp_path, "wic", 10, previous=older)
    unfinished = tmp_path / "policy" / "wic" / "round-11"
    unfinished.mkdir()
    (unfinished / "preference.json").touch()
    assert find_policy(tmp_path) == newest


@pytest.mark.parametrize("remade", ["base", "round-0", "round-1"])
def test_a_round_that_was_made_from_another_one_is_stale(tmp_path: Path, remade: str) -> None:
    base = add_artifact(tmp_path / "policy" / "base")
    first = add_round(tmp_path, "wic", 0, previous=base, content="0")
    second = add_round(tmp_path, "wic", 1, previous=first, content="1")
    newest = add_round(tmp_path, "wic", 2, previous=second, content="2")
    assert find_policy(tmp_path) == newest
    made_from = {"base": None, "round-0": base, "round-1": first}[remade]
    folder = {"base": base, "round-0": first, "round-1": second}[remade]
    add_artifact(folder, previous=made_from, content="another")
    with pytest.raises(ArtifactError, match=f"stale: made from another {remade}; .*--policy"):
        find_policy(tmp_path)


def test_the_newest_round_alone_is_served(tmp_path: Path) -> None:
    first = add_round(tmp_path, "wic", 1)
    newest = add_round(tmp_path, "wic", 2, previous=first)
    (first / "manifest.json").unlink()
    assert find_policy(tmp_path) == newest


def test_no_policy_and_several_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no policy"):
        find_policy(tmp_path)
    add_round(tmp_path, "one", 0)
    add_round(tmp_path, "two", 0)
    with pytest.raises(ArtifactError, match="--policy"):
        find_policy(tmp_path)


def test_a_bundle_is_found_in_a_run_and_by_itself(run_folder: Path, bundle_folder: Path) -> None:
    assert find_bundle(run_folder) == find_bundle(bundle_folder) == bundle_folder
