"""The served policy is the newest round of the only one."""

from pathlib import Path

import pytest
from preforch_models.manifest import ArtifactError
from preforch_service.locate import find_bundle, find_policy


def add_round(run: Path, policy: str, number: int) -> Path:
    folder = run / "policy" / policy / f"round-{number}"
    folder.mkdir(parents=True)
    (folder / "preference.json").touch()
    return folder


def test_the_newest_round_counts_by_number(tmp_path: Path) -> None:
    add_round(tmp_path, "base", 99)
    add_round(tmp_path, "wic", 9)
    newest = add_round(tmp_path, "wic", 10)
    (tmp_path / "policy" / "wic" / "round-11").mkdir()
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
