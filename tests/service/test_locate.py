"""Served is the newest finished round of the policy that `run.json` or the operator names."""

from collections.abc import Callable
from pathlib import Path

import pytest
from preforch_models.manifest import ArtifactError, Manifest, digest, read_manifest, write_manifest
from preforch_models.run_folder import RUN_FILE, RunInfo, find_policy, write_run_info
from preforch_service.locate import find_bundle


def add_artifact(folder: Path, *, previous: Path | None = None, content: str = "", **made_of: Path) -> Path:
    """A finished artifact, as far as its place in a run counts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preference.json").write_text(content, encoding="utf-8")
    made_of |= {} if previous is None else {"previous": previous}
    inputs = {name: digest(read_manifest(path).files) for name, path in made_of.items()}
    write_manifest(folder, Manifest(kind="policy", inputs=inputs))
    return folder


def add_round(
    run: Path, policy: str, number: int, *, previous: Path | None = None, content: str = "", **made_of: Path
) -> Path:
    folder = run / "policy" / policy / f"round-{number}"
    return add_artifact(folder, previous=previous, content=content, **made_of)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that serves the policy `wic`, which is not trained yet."""
    write_run_info(tmp_path, RunInfo(serve="wic"))
    return tmp_path


def test_the_newest_finished_round_counts_by_number(run: Path) -> None:
    add_round(run, "base", 99)
    older = add_round(run, "wic", 9)
    newest = add_round(run, "wic", 10, previous=older)
    unfinished = run / "policy" / "wic" / "round-11"
    unfinished.mkdir()
    (unfinished / "preference.json").touch()
    assert find_policy(run) == newest


@pytest.mark.parametrize("remade", ["base", "round-0", "round-1"])
def test_a_round_that_was_made_from_another_one_is_stale(run: Path, remade: str) -> None:
    base = add_artifact(run / "policy" / "base")
    first = add_round(run, "wic", 0, previous=base, content="0")
    second = add_round(run, "wic", 1, previous=first, content="1")
    newest = add_round(run, "wic", 2, previous=second, content="2")
    assert find_policy(run) == newest
    made_from = {"base": None, "round-0": base, "round-1": first}[remade]
    folder = {"base": base, "round-0": first, "round-1": second}[remade]
    add_artifact(folder, previous=made_from, content="another")
    said = {"base": "base or policy than the run has"}.get(remade, remade)
    with pytest.raises(ArtifactError, match=f"stale: made from another {said}; .*--policy"):
        find_policy(run)


def test_a_policy_may_start_from_another_one(run: Path) -> None:
    base = add_artifact(run / "policy" / "base")
    start = add_round(run, "sft", 0, previous=base, content="sft")
    newest = add_round(run, "wic", 0, previous=start, content="wic")
    assert find_policy(run) == newest
    add_artifact(start, previous=base, content="another")
    with pytest.raises(ArtifactError, match="stale: made from another base or policy"):
        find_policy(run)


def test_a_mean_of_runs_is_made_from_them_and_they_from_a_start(run: Path) -> None:
    base = add_artifact(run / "policy" / "base")
    start = add_round(run, "sft", 0, previous=base, content="sft")
    folder = run / "policy" / "wic"
    runs = {f"run-{n}": add_artifact(folder / f"run-{n}", previous=start, content=f"{n}") for n in (1, 2)}
    newest = add_round(run, "wic", 0, content="mean", **runs)
    assert find_policy(run) == newest
    add_artifact(folder / "run-2", previous=start, content="another")
    with pytest.raises(ArtifactError, match="stale: made from another run-2"):
        find_policy(run)
    add_artifact(folder / "run-2", previous=start, content="2")
    add_artifact(start, previous=base, content="another")
    with pytest.raises(ArtifactError, match="run-1 is stale: made from another base or policy"):
        find_policy(run)


def test_a_policy_that_was_made_from_nothing_of_the_run_is_not_stale(run: Path) -> None:
    add_round(run, "wic", 0, previous=add_artifact(run / "policy" / "base"))
    told = add_round(run, "told", 0)
    assert find_policy(run, "told") == told


def test_another_policy_may_be_stale(run: Path) -> None:
    base = add_artifact(run / "policy" / "base")
    wic = add_round(run, "wic", 0, previous=base, content="wic")
    add_round(run, "sft", 0, previous=add_artifact(run / "gone", content="another base"))
    assert find_policy(run) == wic
    with pytest.raises(ArtifactError, match="sft/round-0 is stale"):
        find_policy(run, "sft")


def test_the_newest_round_alone_is_served(run: Path) -> None:
    first = add_round(run, "wic", 1)
    newest = add_round(run, "wic", 2, previous=first)
    (first / "manifest.json").unlink()
    assert find_policy(run) == newest


def test_of_several_policies_the_one_that_the_run_serves_or_the_operator_names(run: Path) -> None:
    sft = add_round(run, "sft", 0)
    wic = add_round(run, "wic", 1)
    assert find_policy(run) == wic
    assert find_policy(run, "sft") == sft
    with pytest.raises(ArtifactError, match=r"no finished round of policy 'base'; .*\['sft', 'wic'\]"):
        find_policy(run, "base")


def test_a_run_that_serves_none_or_one_that_is_not_there_wants_a_choice(run: Path) -> None:
    with pytest.raises(ArtifactError, match=r"train a policy .*--weights-only"):
        find_policy(run)
    add_round(run, "sft", 0)
    with pytest.raises(ArtifactError, match=r"policy 'wic'; choose with --policy-name: \['sft'\]"):
        find_policy(run)
    write_run_info(run, RunInfo())
    with pytest.raises(ArtifactError, match=r"names no policy to serve; .*--policy-name: \['sft'\]"):
        find_policy(run)


@pytest.mark.parametrize("find", [find_bundle, find_policy])
def test_a_run_of_another_format_is_refused_and_says_what_to_do(
    run: Path, find: Callable[[Path], Path]
) -> None:
    add_round(run, "wic", 0)
    add_artifact(run / "bundle")
    assert find(run).is_dir()
    (run / RUN_FILE).write_text('{"format_version": 3}', encoding="utf-8")
    with pytest.raises(ArtifactError, match="this run has format 3, which this program is too old for"):
        find(run)
    (run / RUN_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"{RUN_FILE}: .*Invalid JSON"):
        find(run)
    (run / RUN_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"this run has format 1, .*train again"):
        find(run)


def test_a_folder_that_is_not_a_run_holds_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"no {RUN_FILE} in it, so it is not a run"):
        find_policy(tmp_path)


def test_a_bundle_is_found_in_a_run_and_by_itself(run_folder: Path, bundle_folder: Path) -> None:
    assert find_bundle(run_folder) == find_bundle(bundle_folder) == bundle_folder
